"""Reads the configuration: the environment in, one frozen `Config` out, or one `ConfigError` that names every fault.

Outside production a `.env` file in the working directory is read too; where both set a variable, the environment wins.
"""

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from environs import Env, EnvValidationError

from runtime.config_parsers import seen
from runtime.config_rules import contradictions
from runtime.config_variables import VARIABLES, AppEnv, Config

__all__ = ["Config", "ConfigError", "load"]

_NAMES = {variable.name for variable in VARIABLES.values()}


class ConfigError(Exception):
    """The environment cannot be run with, for these reasons. Nothing was started; starting again will not help."""

    exit_code = 78  # EX_CONFIG of sysexits.h.

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(
            "\n  ".join(("the configuration is faulty, nothing was started:", *self.faults))
        )


def load(environ: Mapping[str, str] = os.environ, env_file: Path = Path(".env")) -> Config:
    """Read every variable, and hold the values against each other.

    Raises:
        ConfigError: with every fault found, and no secret.
    """
    reader = _Reader(environ)
    faults = [*reader.take_file(env_file), *_misspelt(reader.names)]
    values = {key: reader.variable(spec.name, None, spec=spec) for key, spec in VARIABLES.items()}
    refused = reader.refused()
    faults += [f"{name} {message}" for name, messages in refused.items() for message in messages]
    for key, spec in VARIABLES.items():
        if spec.name in refused:
            values[key] = spec.read(None)  # So that the rest can still be held against each other.
    config = Config(**values, from_env_file=reader.from_file)
    faults += [
        f"{' and '.join(names)}: {message}"
        for names, message in contradictions(config)
        if refused.keys().isdisjoint(names)
    ]
    if faults:
        raise ConfigError(faults)
    return config


class _Reader(Env):
    """environs, reading the mapping it is given where it would read os.environ, and collecting every fault."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(eager=False)
        self._given = environ
        self.add_parser("variable", lambda text, spec: spec.read(text))

    def _get_value(self, env_key: str, default: Any) -> Any:
        return self._given.get(env_key, self._environ.get(env_key, default))

    def take_file(self, path: Path) -> Iterator[str]:
        """Read a `.env` file, unless this is production, and yield what is wrong with it."""
        if self._given.get("APP_ENV", "").lower() == AppEnv.PRODUCTION or not path.is_file():
            return
        try:
            self.read_env(path, recurse=False)
        except (OSError, UnicodeDecodeError) as error:
            yield f"{path} cannot be read ({error}); write UTF-8 text that this user can read"
        if self._environ.get("APP_ENV", "").lower() == AppEnv.PRODUCTION:
            yield f"APP_ENV=production stands in {path}, which production does not read; export it"
        for name in self._environ:
            if name.startswith("OTEL_") and name not in _NAMES and name not in self._given:
                yield f"{name} stands in {path}, where OpenTelemetry does not look; export it"

    def refused(self) -> Mapping[str, Sequence[str]]:
        """Seal: what was said against each variable read."""
        try:
            self.seal()
        except EnvValidationError as error:
            return dict(error.error_messages)  # type: ignore[arg-type]  # a list for eager readers only
        return {}

    @property
    def names(self) -> set[str]:
        return {*self._given, *self._environ}

    @property
    def from_file(self) -> tuple[str, ...]:
        return tuple(sorted(_NAMES & self._environ.keys() - self._given.keys()))


def _misspelt(names: set[str]) -> Iterator[str]:
    """Other programs' variables are theirs to judge; those that were surely meant for this one are ours."""
    for name in sorted(names - _NAMES):
        otel = name.startswith("OTEL_")
        known = [ours for ours in sorted(_NAMES) if ours.startswith("OTEL_") is otel]
        # OpenTelemetry has many names that differ in one word, hence its higher bar.
        near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.95 if otel else 0.8)
        if not near and not otel:
            near = [ours for ours in known if "_" in ours and name.startswith(ours)]
        if near:
            yield f"{seen(name)} is not known; did you mean {near[0]}?"
