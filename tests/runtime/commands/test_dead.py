"""orders dead: on a store where nothing runs, and beside a running instance."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from messages.record import Letter
from runtime import logs
from runtime.bridge import Address as BrokerAddress
from runtime.bridge import Bridge
from runtime.commands.dead import Filter
from runtime.config_variables import LogLevel
from runtime.dead_letters import Buried
from runtime.embedded import EmbeddedServer
from runtime.jetstream import JetStreamLog, Layout
from runtime.letters import store_letter
from runtime.log import Entry
from runtime.recall import Address

Orders = Callable[..., Any]

LETTERS = {
    Address("order", 1): Letter(
        3, 0, "OrderCreated", b"\xff", "not an order", subject="ORDER.created.junk"
    ),
    Address("payment", 0): Letter(0, 0, "Due", b'{"key":"o1"}', "ValueError: no", attempts=3),
}


def fill(store: Path) -> None:
    """Two letters in a store where nothing runs."""

    async def append() -> None:
        logs.configure(LogLevel.ERROR)
        server = EmbeddedServer(store)
        bridge = Bridge(BrokerAddress([server.url]))
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            await nursery.start(bridge.run)
            await bridge.wait_connected()
            log = JetStreamLog(bridge)
            await log.prepare(Layout(7 * 86_400, 1, {"order": 2, "inventory": 2, "payment": 1}))
            for address, letter in LETTERS.items():
                await store_letter(log, address, letter, "i/1.2.0")
            nursery.cancel_scope.cancel()

    trio.run(append)


@pytest.mark.slow
def test_letters_are_decided_about_where_nothing_runs(orders: Orders, tmp_path: Path) -> None:
    fill(tmp_path / "store")
    first, second = orders("dead", "list", "--json").json
    assert (first["id"], first["about"]["seq"]) == ("order.1.3.0", 3)
    assert (second["id"], second["about"]) == ("payment.0.i/1.2.0", None)
    shown = orders("dead", "show", "payment.0.i/1.2.0", "--json").json
    assert shown["body"] == '{"key":"o1"}'
    assert shown["replay"] == "orders dead replay payment.0.i/1.2.0"
    assert orders("dead", "list", "--actor", "payment", "--json").json == [second]

    done = orders("dead", "replay", second["id"])
    assert (done.code, done.err) == (0, "payment.0.i/1.2.0: replayed as message 3\n")
    again = orders("dead", "replay", second["id"])
    assert again.code == 1
    assert "replayed as message 3, by " in again.err
    assert "nothing was done (--again does it again)" in again.err
    assert orders("dead", "replay", second["id"], "--again").code == 0

    dropped = orders("dead", "drop", "--all", "--reason", "a test")
    assert dropped.err == "order.1.3.0: dropped: a test\n"
    table = orders("dead", "list")
    assert "0 shown; 0 open, 2 decided" in table.out
    assert "a test" in orders("dead", "list", "--all").out
    exported = orders("export", "dead-letters").lines
    assert [one["decision"]["decision"] for one in exported] == ["dropped", "replayed"]
    assert "there is no dead letter nope" in orders("dead", "show", "nope").err


@pytest.mark.slow
def test_beside_a_running_instance_nothing_else_is_started(on: Orders) -> None:
    assert on("dead", "list", "--all", "--json").json == []
    assert on("dead", "replay", "--all").err == "there are no open dead letters\n"


@pytest.mark.parametrize(
    "words",
    [
        ["replay"],
        ["replay", "a", "--all"],
        ["drop", "a"],
        ["drop", "a", "--reason", " "],
        ["list", "--since", "yesterday"],
    ],
)
def test_what_is_not_said_in_full_is_refused(orders: Orders, words: list[str]) -> None:
    assert orders("dead", *words).code == 2


def buried(reason: str = "ValueError: No", subject: str = "order.1", age_s: float = 0) -> Buried:
    at_ms = int((time.time() - age_s) * 1000)
    return Buried("x", Entry(1, f"ORDER.dead.{subject}", b"", at_ms), Letter(0, 0, "", b"", reason))


@pytest.mark.parametrize(
    ("wanted", "letter", "taken"),
    [
        (Filter(), buried(), True),
        (Filter("order"), buried(), True),
        (Filter("order.1"), buried(), True),
        (Filter("order.2"), buried(), False),
        (Filter("ord"), buried(), False),
        (Filter(reason="valueerror: no"), buried(), True),
        (Filter(reason="KeyError"), buried(), False),
        (Filter(since_s=7200), buried(age_s=60), True),
        (Filter(since_s=7200), buried(age_s=7300), False),
    ],
)
def test_letters_are_chosen_by_whom_why_and_when(
    wanted: Filter, letter: Buried, taken: bool
) -> None:
    assert wanted.takes(letter) is taken
