"""Metrics, read off the running system when somebody asks: they cost nothing in between."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import trio
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from runtime.recall import Address
from runtime.shard import Shard
from supervisors import ChildCrashed, ChildEnded, ErrorReport, Node, Report, RestartScheduled
from supervisors.errors import leaves

if TYPE_CHECKING:
    from runtime.system import System


class Metrics(Collector):
    """Restarts and states of children, the state of the connection, and what each shard is busy with."""

    def __init__(self, system: "System") -> None:
        self._system = system
        self._restarts: Counter[tuple[str, str]] = Counter()  # By child and reason.
        self._reasons: dict[str, str] = {}  # What a child ended of last.
        self._crashes: Counter[str] = Counter()

    def count(self, report: Report) -> None:
        """Count a supervision report."""
        match report:
            case RestartScheduled(path=path):
                self._restarts[path, self._reasons.get(path, "unknown")] += 1
            case ErrorReport(path=path, error=error):
                # Its kind, not its text: a label must have few values, and keep no secret.
                self._reasons[path] = type(next(leaves(error))).__name__
                if isinstance(report, ChildCrashed):
                    self._crashes[path] += 1
            case ChildEnded(path=path):
                self._reasons[path] = "ended"

    @property
    def restarts(self) -> int:
        return self._restarts.total()

    def collect(self) -> Iterator[Metric]:
        """What a scrape gets."""
        system = self._system
        yield _restarts(self._restarts)
        yield _crashes(self._crashes)
        if system.root is not None:
            yield from _tree(system.root.snapshot(), trio.current_time())
        yield GaugeMetricFamily(
            "orders_broker_connected",
            "1 while connected to NATS.",
            value=float(system.bridge.connected),
        )
        yield CounterMetricFamily(
            "orders_spans_dropped", "Spans lost before export.", value=system.tracer.dropped
        )
        yield from _shards(system.shards.running())


def _shards(running: Mapping[Address, Shard]) -> Iterator[Metric]:
    lag = GaugeMetricFamily(
        "orders_mailbox_lag", "Facts and requests waiting, by shard.", labels=["shard"]
    )
    calls = GaugeMetricFamily(
        "orders_calls_in_flight", "Calls to the payment provider, by shard.", labels=["shard"]
    )
    for address, shard in running.items():
        vitals = shard.vitals
        lag.add_metric([str(address)], vitals.waiting)
        calls.add_metric([str(address)], vitals.calls)
    yield lag
    yield calls


def _restarts(counts: Mapping[tuple[str, str], int]) -> Metric:
    family = CounterMetricFamily(
        "orders_restarts",
        "Restarts by supervised child, and by what it had ended of.",
        labels=["child", "reason"],
    )
    for (path, reason), count in counts.items():
        family.add_metric([path, reason], count)
    return family


def _crashes(counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily("orders_crashes", "Crashes by supervised child.", labels=["child"])
    for path, count in counts.items():
        family.add_metric([path], count)
    return family


def _tree(root: Node, now_s: float) -> Iterator[Metric]:
    """The state of every child now, and how long those that back off still will."""
    states = GaugeMetricFamily(
        "orders_child_state", "1 for the state a child is in.", labels=["child", "state"]
    )
    backoffs = GaugeMetricFamily(
        "orders_backoff_seconds", "How long a child still waits to be restarted.", labels=["child"]
    )
    for node in root.walk():
        states.add_metric([node.path, node.state.value], 1)
        backoffs.add_metric([node.path], max(0.0, (node.until or now_s) - now_s))
    yield states
    yield backoffs
