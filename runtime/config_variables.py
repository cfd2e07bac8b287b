"""Every environment variable there is: a field of `Config` each, with how it is written, its default and its meaning.

The README's table and `deploy/example.env` are printed from here, so that neither can drift.
"""
# ruff: noqa: RUF009 - `_env` makes a dataclasses.field, which is what ruff asks for.

import os
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import platformdirs

from actors.order_check import LINES_LIMIT, LINES_MAX
from runtime import config_parsers as parse
from runtime.config_parsers import Address

# Of each actor. Measured with `orders bench` (10,000 orders, 256 in flight, two cores), orders a second and CPU
# milliseconds an order with the broker's: 4 shards 1,960 and 0.65, 2 shards 2,500 and 0.42, 1 shard 2,680 and 0.42:
# fewer shards, larger groups. Two, so that one slow append does not hold up everybody.
SHARDS = 2


class AppEnv(StrEnum):
    DEVELOPMENT = "development"
    TEST = "test"
    STAGING = "staging"
    PRODUCTION = "production"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    CONSOLE = "console"
    JSON = "json"


class TraceExporter(StrEnum):
    OTLP = "otlp"
    CONSOLE = "console"
    NONE = "none"


class OtlpProtocol(StrEnum):
    HTTP_PROTOBUF = "http/protobuf"


class Sampler(StrEnum):
    ALWAYS_ON = "always_on"
    ALWAYS_OFF = "always_off"
    TRACEIDRATIO = "traceidratio"
    PARENTBASED_ALWAYS_ON = "parentbased_always_on"
    PARENTBASED_ALWAYS_OFF = "parentbased_always_off"
    PARENTBASED_TRACEIDRATIO = "parentbased_traceidratio"


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable. `default` is what a user would write to get the same; None leaves the field None."""

    name: str
    parser: Callable[[str], Any]
    default: str | Callable[[], str] | None
    meaning: str
    shown: str | None = None
    """What the documentation says instead, where a default depends on the machine or is no value."""

    def read(self, text: str | None) -> Any:
        if text == "" and self.name.startswith("OTEL_"):
            text = None  # The OpenTelemetry specification: an empty value is an unset one.
        if text is None:
            text = self.default() if callable(self.default) else self.default
        return None if text is None else self.parser(text)

    @property
    def default_shown(self) -> str:
        return self.shown or (self.default if isinstance(self.default, str) else "unset")


def _env(
    name: str,
    parser: Callable[[str], Any],
    default: str | Callable[[], str] | None,
    meaning: str,
    shown: str | None = None,
) -> Any:
    return field(metadata={"variable": Variable(name, parser, default, meaning, shown)})


def _user_data_dir() -> str:
    return str(platformdirs.user_data_path("orders"))


def _host_and_pid() -> str:
    host = re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname().partition(".")[0])
    return f"{host[:50]}-{os.getpid()}"


@dataclass(frozen=True, slots=True)
class Config:
    """What the program runs with. Times are in seconds; None means unset."""

    nats_urls: tuple[str, ...] | None = _env(
        "NATS_URL",
        parse.broker_urls,
        None,
        "the broker: `nats://` or `tls://` URLs, comma-separated, no passwords in them",
        "unset: embedded",
    )
    nats_creds_file: Path | None = _env(
        "NATS_CREDS_FILE", parse.secret_file, None, "who we are to the broker; mode 0600"
    )
    nats_tls_ca_file: Path | None = _env(
        "NATS_TLS_CA_FILE", parse.readable_file, None, "whom we take the broker's certificate from"
    )
    nats_tls_cert_file: Path | None = _env(
        "NATS_TLS_CERT_FILE", parse.readable_file, None, "our certificate, with its key below"
    )
    nats_tls_key_file: Path | None = _env(
        "NATS_TLS_KEY_FILE", parse.secret_file, None, "the key of our certificate; mode 0600"
    )
    insecure: bool = _env(
        "INSECURE",
        parse.switch,
        "off",
        "accept a broker on another machine without TLS, and fault injection reachable from there",
    )
    nats_store_dir: Path = _env(
        "NATS_STORE_DIR",
        parse.path,
        _user_data_dir,
        "where the embedded server, and the built-in payment simulator, keep their data",
        "a per-user data directory",
    )
    stream_replicas: int = _env("STREAM_REPLICAS", parse.replicas, "1", "1, 3 or 5")

    http_bind: Address = _env("HTTP_BIND", parse.address, "127.0.0.1:8080", "the public API")
    admin_bind: Address = _env(
        "ADMIN_BIND", parse.address, "127.0.0.1:8081", "faults, supervision tree, metrics"
    )
    tenant_header: str | None = _env(
        "TENANT_HEADER",
        parse.token,
        None,
        "the request header in which the platform in front says who the customer is: the same key of two tenants is"
        " two orders, and an order without it is refused",
        "unset: everybody is one tenant",
    )

    order_shards: int = _env(
        "ORDER_SHARDS",
        parse.integer(1, 1024),
        str(SHARDS),
        "fixed when the stream is created; a different value later is refused",
    )
    inventory_shards: int = _env(
        "INVENTORY_SHARDS", parse.integer(1, 1024), str(SHARDS), "likewise"
    )
    payment_shards: int = _env("PAYMENT_SHARDS", parse.integer(1, 1024), str(SHARDS), "likewise")

    payment_gateway_url: str | None = _env(
        "PAYMENT_GATEWAY_URL",
        parse.web_url,
        None,
        "the payment gateway",
        "unset: built-in simulator",
    )
    worker_pool_size: int = _env(
        "WORKER_POOL_SIZE",
        parse.integer(1, 1000),
        "10",
        "concurrent calls to the payment gateway per instance; 10 make 100 charges a second where each takes 0.1 s;"
        " late ones give up their place, 50 of them at most",
    )
    payment_call_timeout_s: float = _env(
        "PAYMENT_CALL_TIMEOUT", parse.duration, "10s", "one call to the gateway"
    )
    payment_deadline_s: float = _env("PAYMENT_DEADLINE", parse.duration, "15m", "the whole payment")
    reservation_ttl_s: float = _env(
        "RESERVATION_TTL", parse.duration, "30m", "how long stock stays reserved for an order"
    )

    order_lines_max: int = _env(
        "ORDER_LINES_MAX",
        parse.integer(1, LINES_LIMIT),
        str(LINES_MAX),
        "lines of one order; with more than 256 of them request bodies may be larger than 64 KiB",
    )

    restart_intensity: int = _env(
        "RESTART_INTENSITY",
        parse.integer(0, 1000),
        "10",
        "restarts within RESTART_PERIOD before a supervisor of actors gives up",
    )
    restart_period_s: float = _env("RESTART_PERIOD", parse.duration, "60s", "see above")
    restart_backoff_min_s: float = _env(
        "RESTART_BACKOFF_MIN", parse.duration, "100ms", "the wait before the first restart"
    )
    restart_backoff_max_s: float = _env(
        "RESTART_BACKOFF_MAX", parse.duration, "5s", "what that wait doubles up to"
    )
    shutdown_grace_s: float = _env("SHUTDOWN_GRACE", parse.duration, "20s", "SIGTERM to exit")
    retention_s: float = _env(
        "RETENTION",
        parse.duration,
        "7d",
        "how long handled facts and finished orders stay readable",
    )

    accept_loss: bool = _env(
        "ACCEPT_LOSS",
        parse.switch,
        "off",
        "start although records expired unread or a companion of the log is gone; what is missing is logged",
    )

    faults: bool = _env(
        "FAULTS", parse.switch, "off", "fault injection; refused when APP_ENV=production"
    )
    app_env: AppEnv = _env(
        "APP_ENV", parse.choice(AppEnv), "development", "development, test, staging or production"
    )
    instance_id: str = _env(
        "INSTANCE_ID", parse.token, _host_and_pid, "this instance's name", "host and process id"
    )
    log_level: LogLevel = _env(
        "LOG_LEVEL", parse.choice(LogLevel), "info", "debug, info, warning or error"
    )
    log_format: LogFormat | None = _env(
        "LOG_FORMAT",
        parse.choice(LogFormat),
        None,
        "console or json",
        "console on a terminal, else json",
    )

    otel_sdk_disabled: bool = _env(
        "OTEL_SDK_DISABLED", parse.switch, "false", "no traces, whatever stands below"
    )
    otel_traces_exporter: TraceExporter | None = _env(
        "OTEL_TRACES_EXPORTER",
        parse.choice(TraceExporter),
        None,
        "otlp, console (JSON lines) or none",
        "otlp if an endpoint is set, else none",
    )
    otel_endpoint: str | None = _env(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        parse.web_url,
        None,
        "where traces go, over HTTP; `/v1/traces` is appended",
    )
    otel_traces_endpoint: str | None = _env(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", parse.web_url, None, "the same, used as it stands"
    )
    otel_protocol: OtlpProtocol = _env(
        "OTEL_EXPORTER_OTLP_PROTOCOL", parse.choice(OtlpProtocol), "http/protobuf", "the only one"
    )
    otel_sampler: Sampler = _env(
        "OTEL_TRACES_SAMPLER",
        parse.choice(Sampler),
        "parentbased_always_on",
        "which orders are traced; with `parentbased_traceidratio` a share of them",
    )
    otel_sampler_arg: float = _env("OTEL_TRACES_SAMPLER_ARG", parse.ratio, "1", "that share")
    otel_service_name: str = _env(
        "OTEL_SERVICE_NAME", parse.text, "orders", "what traces call this service"
    )
    trace_file: Path | None = _env(
        "ORDERS_TRACE_FILE",
        parse.new_file,
        None,
        "with the console exporter: the file to append to instead of standard output",
    )

    from_env_file: tuple[str, ...] = ()
    """Names of the variables that a `.env` file gave."""

    @property
    def embedded(self) -> bool:
        """Whether we run a nats-server of our own."""
        return self.nats_urls is None

    @property
    def simulator_ledger(self) -> Path:
        """Where the built-in payment simulator remembers its charges."""
        return self.nats_store_dir / "payments.jsonl"


VARIABLES: dict[str, Variable] = {
    spec.name: spec.metadata["variable"] for spec in fields(Config) if spec.metadata
}
"""By the name of the field."""


def readme_table() -> str:
    """The configuration table of the README, in Markdown."""
    rows = (f"| `{v.name}` | {v.default_shown} | {v.meaning} |" for v in VARIABLES.values())
    return "\n".join(("| variable | default | meaning |", "|---|---|---|", *rows)) + "\n"


def example_env() -> str:
    """`deploy/example.env`: every variable with its default, commented out."""
    return "\n".join(_example_lines()) + "\n"


def _example_lines() -> Iterator[str]:
    yield "# Every variable, with its default. Remove the # before a name to set it."
    yield "# Read as `.env` in the working directory outside production, or by: docker run --env-file"
    for variable in VARIABLES.values():
        shown = f" ({variable.shown})" if variable.shown else ""
        default = variable.default if isinstance(variable.default, str) else ""
        yield f"\n# {variable.meaning}{shown}\n#{variable.name}={default}"
