"""Metrics, read off the running system when somebody asks: they cost nothing in between."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from supervisors import ChildCrashed, Report, RestartScheduled

if TYPE_CHECKING:
    from runtime.system import System


class Metrics(Collector):
    """Restarts by child, the state of the connection, and what waits in each mailbox."""

    def __init__(self, system: "System") -> None:
        self._system = system
        self._restarts: Counter[str] = Counter()
        self._crashes: Counter[str] = Counter()

    def count(self, report: Report) -> None:
        """Count a supervision report."""
        if isinstance(report, RestartScheduled):
            self._restarts[report.path] += 1
        elif isinstance(report, ChildCrashed):
            self._crashes[report.path] += 1

    @property
    def restarts(self) -> int:
        return self._restarts.total()

    def collect(self) -> Iterator[Metric]:
        """What a scrape gets."""
        system = self._system
        yield _by_child("orders_restarts", "Restarts by supervised child.", self._restarts)
        yield _by_child("orders_crashes", "Crashes by supervised child.", self._crashes)
        yield GaugeMetricFamily(
            "orders_broker_connected",
            "1 while connected to NATS.",
            value=float(system.bridge.connected),
        )
        yield CounterMetricFamily(
            "orders_spans_dropped", "Spans lost before export.", value=system.tracer.dropped
        )
        lag = GaugeMetricFamily(
            "orders_mailbox_lag", "Facts and requests waiting, by shard.", labels=["shard"]
        )
        for address, shard in system.shards.running().items():
            lag.add_metric([str(address)], len(shard.mailbox))
        yield lag


def _by_child(name: str, text: str, counts: Counter[str]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=["child"])
    for path, count in counts.items():
        family.add_metric([path], count)
    return family
