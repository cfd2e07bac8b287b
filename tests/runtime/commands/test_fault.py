"""`orders fault`: what it says and asks for, before the operator's address of an instance that is only that."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import structlog
import trio

from runtime.commands.client import InstanceError
from runtime.commands.fault import clear_faults, inject_fault, list_faults
from runtime.config import load
from runtime.config_variables import Config
from runtime.edge import admin_app, serve
from runtime.faults import POINTS, Action, Faults, Hands

CRASH = {"point": "shard.after-append", "action": "crash", "actor": "order"}
Open = Callable[[Faults | None], Any]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The instance has a log of its own; here it would stand between the answers."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def faults() -> Faults:
    return Faults(Hands({"order": 2, "inventory": 1, "payment": 1}, lambda *_: None))


@pytest.fixture
def opened(nursery: trio.Nursery) -> Open:
    """Serves the operator's address with these faults; returns the configuration that finds it."""

    async def open_(faults: Faults | None) -> Config:
        app = admin_app(object(), faults=faults)  # type: ignore[arg-type]  # Nobody asks the desk.
        [address] = await nursery.start(partial(serve, app, "127.0.0.1:0"))
        return load({"ADMIN_BIND": f"127.0.0.1:{address.rpartition(':')[2]}"})

    return open_


async def test_the_list_shows_every_point_every_action_and_what_is_armed(
    opened: Open, faults: Faults, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    config = await opened(faults)
    await list_faults(config, False)
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*POINTS, *Action, "OrderReserved"))
    assert "nothing is armed" in shown
    faults.inject("gateway.after-request", "delay", fact="Charge", times=5, probability=0.5, seed=7)
    await list_faults(config, False)
    shown = capsys.readouterr().out
    assert "delay at gateway.after-request, fact Charge, probability 0.5 (seed 7), for 1 s" in shown
    assert "0 of 5" in shown


async def test_what_is_injected_is_armed_and_cleared_again(
    opened: Open, faults: Faults, capsys: Any
) -> None:
    config = await opened(faults)
    await inject_fault(config, CRASH, False)
    assert capsys.readouterr().err == (
        "f1 is armed for 60 s: crash at shard.after-append, actor order\n"
    )
    await inject_fault(config, CRASH, True)
    assert json.loads(capsys.readouterr().out)["id"] == "f2"
    await clear_faults(config, "f1")
    assert [armed.id for armed in faults.active()] == ["f2"]
    await list_faults(config, True)
    assert [one["id"] for one in json.loads(capsys.readouterr().out)["armed"]] == ["f2"]
    await clear_faults(config, None)
    assert faults.active() == []


async def test_a_refusal_names_every_mistake(opened: Open, faults: Faults) -> None:
    config = await opened(faults)
    with pytest.raises(InstanceError) as refused:
        await inject_fault(config, {**CRASH, "point": "shard.after-apend", "shard": 9}, False)
    assert "point: there is no 'shard.after-apend'; did you mean" in str(refused.value)
    assert "shard: is 9; write 0 to 1" in str(refused.value)
    with pytest.raises(InstanceError, match="No such fault is armed"):
        await clear_faults(config, "f9")


@pytest.mark.parametrize(
    "command",
    [
        partial(list_faults, as_json=False),
        partial(inject_fault, fault=CRASH, as_json=False),
        partial(clear_faults, fault_id=None),
    ],
)
async def test_where_faults_are_off_the_commands_say_how_to_have_them(
    opened: Open, command: Any
) -> None:
    config = await opened(None)
    with pytest.raises(InstanceError, match=r"faults are off .*: start it with FAULTS=on"):
        await command(config)


def test_durations_are_written_with_their_units(orders: Any) -> None:
    done = orders("fault", "inject", "shard.after-append", "delay", "--duration", "2")
    assert done.code == 2
    assert "write a number above 0 with its unit" in " ".join(done.err.split())


@pytest.mark.parametrize(
    "words", [("list",), ("inject", "log.after-append", "drop", "--for", "5m"), ("clear",)]
)
def test_where_no_instance_runs_the_commands_say_so(orders: Any, words: tuple[str, ...]) -> None:
    done = orders("fault", *words)
    assert done.code == 1
    assert "no instance is running" in done.err
