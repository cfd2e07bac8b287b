"""The audit of one campaign: the log of its brokers, held against what its customers and its provider wrote down."""

from collections.abc import Sequence
from pathlib import Path

from runtime.audit import History, Report, audit
from runtime.chaos.stage import Stage
from runtime.config import load as load_config
from runtime.config_variables import Config
from runtime.log import Entry
from runtime.reading import open_broker, read_to_end
from runtime.system import shard_counts

SUBJECTS = ("ORDER.>",)


async def audit_run(stage: Stage, *, is_quiet: bool) -> Report:
    """Read the whole log, and judge. No instance runs any more; the brokers do."""
    return audit(
        await _read_history(_config(stage)),
        journal=stage.load.attempts,
        ledger=stage.gateway.ledger(),
        marks=stage.marks(),
        quiescent=is_quiet,
        complete=True,
        terminal_within_s=60.0,
    )


async def _read_history(config: Config) -> History:
    history = History(shard_counts(config))

    async def take(entries: Sequence[Entry]) -> None:
        history.add_all(entries)

    async with open_broker(config) as log:
        await read_to_end(log, SUBJECTS, take)
    return history


def _config(stage: Stage) -> Config:
    """How one reads the log: straight from the brokers, whatever stands between them and the instance."""
    environ = stage.instance.environ | {
        "NATS_URL": ",".join(stage.brokers.urls),
        "INSTANCE_ID": "auditor",
        "INSECURE": "on",
    }
    return load_config(environ, env_file=Path(stage.directory) / "none")
