"""The row about the trace collector: gone, silent, slow or refusing. Orders must not notice."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import trio

from runtime.chaos.process import wait_for
from runtime.chaos.row import Options, Row, Setting, Strike, this_machine
from runtime.chaos.stage import Stage

LASTS_S: Final = (4.0, 7.0)
COLLECTOR: Final = "collector"
SLOW_S: Final = 10.0
ASKED_WITHIN_S: Final = 60.0  # An exporter that was refused takes its time to try again.
GROWTH_BYTES_MAX: Final = 100 << 20
WELL: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
REFUSAL: Final = b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n"


class Sink(StrEnum):
    """How a collector treats whoever sends it spans."""

    WELL = "is well"
    SILENT = "takes connections and reads nothing"
    SLOW = "answers after 10 s"
    REFUSES = "answers 503"
    HANGS_UP = "hangs up"


class Collector:
    """Takes spans over HTTP, and forgets them."""

    def __init__(self) -> None:
        self.behaves = Sink.WELL
        self.met = 0
        """How often it has behaved otherwise."""

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError):
                while await self._answer(stream):
                    pass

    async def _answer(self, stream: trio.SocketStream) -> bool:
        """One request; False where the connection is over."""
        if self.behaves is not Sink.SILENT and not await _read_request(stream):
            return False
        self.met += self.behaves is not Sink.WELL
        match self.behaves:
            case Sink.HANGS_UP:
                return False
            case Sink.SILENT:
                await trio.sleep(SLOW_S)
                return False
            case Sink.SLOW:
                await trio.sleep(SLOW_S)
        await stream.send_all(REFUSAL if self.behaves is Sink.REFUSES else WELL)
        return True


@asynccontextmanager
async def with_collector(options: Options) -> AsyncIterator[Setting]:
    """Put a collector up, and have every order traced to it."""
    collector = Collector()
    async with this_machine(options) as setting, trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, collector.serve, 0, host="127.0.0.1")
        [listener] = await nursery.start(serve)
        port = listener.socket.getsockname()[1]
        environ = {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_TRACES_SAMPLER": "always_on",
        }
        tools = {COLLECTOR: collector}
        yield replace(setting, environ={**setting.environ, **environ}, tools=tools)
        nursery.cancel_scope.cancel()


def behaving(how: Sink) -> Strike:
    """A strike: the collector behaves like that for a while."""

    async def strike(stage: Stage) -> None:
        collector = stage.setting.tools[COLLECTOR]
        assert isinstance(collector, Collector)
        async with stage.fault(f"the collector {how}", from_strike=True) as fault:
            met, before_bytes = collector.met, _rss_bytes(stage)
            collector.behaves = how

            async def has_met() -> bool:
                return collector.met > met

            if await wait_for(has_met, within_s=ASKED_WITHIN_S):
                fault.struck()
                await trio.sleep(stage.rng.uniform(*LASTS_S))
            collector.behaves = Sink.WELL
            grown_bytes = _rss_bytes(stage) - before_bytes
            if grown_bytes > GROWTH_BYTES_MAX:
                stage.findings.append(f"{fault.name}: {grown_bytes >> 20} MB more memory")

    return strike


async def judge_answers(stage: Stage) -> None:
    """What an acceptance takes while the collector is in trouble, against the rest of the time."""
    during = [
        attempt.took_ms
        for fault in stage.faults
        for attempt in stage.load.attempts_between(fault.at_ms, fault.healed_ms)
        if attempt.op == "place" and attempt.outcome == "accepted"
    ]
    ever = [one.took_ms for one in stage.load.attempts if one.op == "place" and one.code == 202]
    if during:
        stage.notes.append(
            f"p50 of an acceptance: {median(during):.1f} ms in trouble, {median(ever):.1f} ms in all"
        )


def _rss_bytes(stage: Stage) -> int:
    status = Path(f"/proc/{stage.instance.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


async def _read_request(stream: trio.SocketStream) -> bool:
    """Read one request to its end; False where there is none."""
    request = b""
    while b"\r\n\r\n" not in request:
        if not (more := await stream.receive_some()):
            return False
        request += more
    head, _, body = request.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    left = int(lengths[0].split(b":")[1]) - len(body)
    while left > 0:
        left -= len(more := await stream.receive_some())
        if not more:
            return False
    return True


ROWS = (
    Row(
        "F21",
        "the trace collector is in trouble",
        goal="orders unaffected; memory bounded",
        strikes=tuple(behaving(how) for how in Sink if how is not Sink.WELL),
        faults=4,
        setting=with_collector,
        judge=judge_answers,
        in_mix=False,
    ),
)
