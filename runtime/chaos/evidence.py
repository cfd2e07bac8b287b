"""The audit of one campaign: the log of its brokers, held against what everybody else wrote down."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from runtime.audit import Evidence, Span, read_spans
from runtime.audit.lines import LinesError
from runtime.audit.reading import read_history, read_views
from runtime.chaos.stage import Stage
from runtime.config import load as load_config
from runtime.config_variables import Config
from runtime.reading import open_broker
from runtime.system import shard_counts

VIEWS_MAX = 20_000  # Each is a question of its own to the broker: beyond, nobody asks.


async def gather(stage: Stage, *, is_quiet: bool) -> Evidence:
    """Everything that there is to judge by. No instance runs any more; the brokers do."""
    config = _config(stage)
    spans = _spans(stage)
    async with open_broker(config) as log:
        history = await read_history(log, shard_counts(config), keeps_spans=spans is not None)
        is_small = len(history.orders) <= VIEWS_MAX
        views = await read_views(log, history.orders.by_id) if is_small else None
    return Evidence(
        history,
        journal=tuple(stage.load.attempts),
        ledger=tuple(stage.gateway.ledger()),
        views=views,
        marks=tuple(stage.marks()),
        spans=spans,
        logs=dict(_logs(stage)),
        is_quiescent=is_quiet,
        is_complete=True,
    )


def _spans(stage: Stage) -> tuple[Span, ...] | None:
    """What the instances traced; None if they did not."""
    spans: list[Span] = []
    for instance in stage.instances:
        with suppress(FileNotFoundError, LinesError):
            spans += read_spans(instance.trace_file)
    return tuple(spans) or None


def _logs(stage: Stage) -> Iterator[tuple[str, Iterable[str]]]:
    """The logs of all processes, less what the faults explain."""
    explained = re.compile(stage.row.explains or "(?!)")
    files = [one.log_file for one in stage.instances] + [one.log_file for one in stage.brokers.all]
    for path in filter(Path.exists, files):
        lines = path.read_text(errors="replace").splitlines()
        yield path.name, [line for line in lines if not explained.search(line)]


def _config(stage: Stage) -> Config:
    """How one reads the log: straight from the brokers, whatever stands between them and the instance."""
    environ = stage.instance.environ | {
        "NATS_URL": ",".join(stage.brokers.urls),
        "INSTANCE_ID": "auditor",
        "INSECURE": "on",
    }
    return load_config(environ, env_file=stage.directory / "none")
