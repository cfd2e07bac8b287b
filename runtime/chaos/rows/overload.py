"""The row about too much of it: ten times the customers, all of them for one product, and some that never finish."""

from collections import Counter
from typing import Final

import trio

from runtime.chaos.process import wait_for
from runtime.chaos.row import Row
from runtime.chaos.stage import Stage

TIMES: Final = 10
RATE_MIN: Final = 1_000.0  # Above what an instance and its customers manage together on two cores.
LASTS_S: Final = 5.0
LONG_LASTS_S: Final = 60.0
CONNECTIONS: Final = 400
DRAINED_WITHIN_S: Final = 30.0
SLOW_CUSTOMERS: Final = 500
SLOW_LASTS_S: Final = 8.0
NAME: Final = "ten times the customers"


async def overload(stage: Stage) -> None:
    load = stage.load
    usual, few = load.rate, load.connections
    async with stage.fault(NAME) as fault:
        load.rate, load.connections = max(usual * TIMES, RATE_MIN), CONNECTIONS
        fault.struck()
        begun = load.begun
        await trio.sleep(LONG_LASTS_S if stage.options.long else LASTS_S)
        load.rate = usual
        stage.counts["orders during overload"] += load.begun - begun
    since_s = trio.current_time()

    async def is_drained() -> bool:
        return load.under_way <= usual

    if await wait_for(is_drained, within_s=DRAINED_WITHIN_S):
        took_s = trio.current_time() - since_s
        stage.notes.append(f"all served {took_s:.1f} s after the overload")
    else:
        stage.findings.append(f"{load.under_way} still waited {DRAINED_WITHIN_S:g} s after it")
    load.connections = few


async def one_product(stage: Stage) -> None:
    """Every customer wants the same thing, so one shard has all of it."""
    load = stage.load
    usual = load.rate
    async with stage.fault("everybody wants one product") as fault:
        load.sku, load.rate = "hat-0", usual * 3
        fault.struck()
        await trio.sleep(LASTS_S)
        load.sku, load.rate = None, usual


async def slow_customers(stage: Stage) -> None:
    """Connections that send a byte a second, and never a whole request."""
    opened: list[trio.SocketStream] = []

    async def dawdle() -> None:
        host, _, port = stage.instance.http.rpartition(":")
        try:
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                opened.append(stream)
                for byte in b"POST /orders HTTP/1.1\r\nHost: slow\r\nX: " + b"x" * 100:
                    await stream.send_all(bytes([byte]))
                    await trio.sleep(1)
        except (OSError, trio.BrokenResourceError):
            stage.counts["slow connections that were ended"] += 1

    async def are_many() -> bool:
        return len(opened) > SLOW_CUSTOMERS // 2

    async with (
        stage.fault(f"{SLOW_CUSTOMERS} slow connections", from_strike=True) as fault,
        trio.open_nursery() as nursery,
    ):
        for _ in range(SLOW_CUSTOMERS):
            nursery.start_soon(dawdle)
        if await wait_for(are_many, within_s=SLOW_LASTS_S):
            fault.struck()
            await trio.sleep(SLOW_LASTS_S)
        nursery.cancel_scope.cancel()


async def judge_goodput(stage: Stage) -> None:
    """How many orders a second were accepted while there were too many, against the best second of all."""
    best = max(Counter(map(int, stage.load.heard_s)).values(), default=0)
    for fault in stage.faults:
        if fault.name == NAME:
            within_s = (fault.healed_ms - fault.at_ms) / 1000
            accepted = sum(
                one.op == "place" and one.outcome == "accepted"
                for one in stage.load.attempts_between(fault.at_ms, fault.healed_ms)
            )
            rate = accepted / within_s
            share = f"{rate / best:.0%}" if best else "nothing"
            stage.notes.append(f"accepted {rate:.0f}/s in overload, {share} of the best second")


ROWS = (
    Row(
        "F22",
        "overload, one hot product, slow connections",
        goal="shed with 429 or 503; what is accepted finishes; recovered within 30 s",
        strikes=(overload, one_product, slow_customers),
        faults=3,
        judge=judge_goodput,
        in_mix=False,
    ),
)
