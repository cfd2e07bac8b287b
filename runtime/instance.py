"""One instance as a process: configuration in, exit code out."""

import structlog

from runtime import logs, tracing
from runtime.collector import tune_collector
from runtime.config_variables import Config
from runtime.system import NEVER_RESTART, System
from supervisors import run

_logger = structlog.get_logger("runtime.instance")


def run_instance(config: Config) -> int:
    """Run until a signal or a failure that no restart cures; returns the exit code of `supervisors.run`."""
    logs.configure(config.log_level, config.log_format)
    if config.from_env_file:
        _logger.info("read_from_env_file", variables=list(config.from_env_file))
    tracer = tracing.start(config)
    system = System(config, tracer)
    tune_collector()
    try:
        return run(
            system.spec(),
            on_report=system.on_report,
            on_open=system.adopt,
            never_restart=NEVER_RESTART,
            grace_s=config.shutdown_grace_s,
        )
    finally:
        tracer.close()
