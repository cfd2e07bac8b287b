"""What was armed and what has fired, for /metrics: a run that should have met faults can be seen to have met none."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from runtime.faults.injector import Faults

LABELS = ["point", "action"]


class FaultMetrics(Collector):
    """Read off the faults of this process when somebody asks."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def collect(self) -> Iterator[Metric]:
        armed = Counter((one.fault.point, one.fault.action.value) for one in self._faults.active())
        gauge = GaugeMetricFamily("orders_faults_armed", "Faults armed now.", labels=LABELS)
        for labels, number in armed.items():
            gauge.add_metric(list(labels), number)
        yield gauge
        fired = CounterMetricFamily(
            "orders_faults_fired", "Faults that have happened since the start.", labels=LABELS
        )
        for labels, number in self._faults.fired.items():
            fired.add_metric(list(labels), number)
        yield fired
