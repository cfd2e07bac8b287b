"""What cannot be together in one configuration: the variables concerned, and what to do about it."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from runtime.config_parsers import is_loopback, seen
from runtime.config_variables import AppEnv, Config
from supervisors.backoff import Backoff

RETENTION_DEADLINES = 2  # One to run out, and as long again for a stop and a restart.

OUR_HEADERS = frozenset(
    ("host", "content-type", "content-length", "idempotency-key", "prefer", "traceparent")
)
"""What a request says in its headers otherwise."""

Contradiction = tuple[tuple[str, ...], str]


def contradictions(config: Config) -> Iterator[Contradiction]:
    yield from _broker_files(config)
    yield from _broker(config)
    yield from _doors(config)
    yield from _restarts(config)
    yield from _retention(config)
    if config.app_env is AppEnv.PRODUCTION:
        yield from _production(config)


def _broker_files(config: Config) -> Iterator[Contradiction]:
    files = {
        "NATS_CREDS_FILE": config.nats_creds_file,
        "NATS_TLS_CA_FILE": config.nats_tls_ca_file,
        "NATS_TLS_CERT_FILE": config.nats_tls_cert_file,
        "NATS_TLS_KEY_FILE": config.nats_tls_key_file,
    }
    used = tuple(name for name, path in files.items() if path)
    if used and config.embedded:
        yield used, "the embedded broker asks for none; set NATS_URL to the broker they are for"
    if any(name.startswith("NATS_TLS_") for name in used) and _in_clear(config):
        yield ("NATS_URL", *used), "certificates are of use with TLS only; write tls:// URLs"
    if (config.nats_tls_cert_file is None) is not (config.nats_tls_key_file is None):
        yield ("NATS_TLS_CERT_FILE", "NATS_TLS_KEY_FILE"), "one is no use alone; set both"


def _broker(config: Config) -> Iterator[Contradiction]:
    if _in_clear(config) and not config.insecure:
        hosts = (urlsplit(url).hostname or "" for url in config.nats_urls or ())
        if not all(is_loopback(host) for host in hosts):
            yield (
                ("NATS_URL",),
                "orders would cross the network in clear; write tls://, or set INSECURE=on",
            )
    if config.embedded and config.stream_replicas > 1:
        yield (
            ("STREAM_REPLICAS",),
            "the embedded broker is one server; write 1, or set NATS_URL to a cluster",
        )
    if config.embedded or config.payment_gateway_url is None:
        nearest = _nearest_there(config.nats_store_dir)
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            yield (
                ("NATS_STORE_DIR",),
                f"{seen(str(nearest))} is no directory that this user can write to; write one",
            )


def _doors(config: Config) -> Iterator[Contradiction]:
    if (config.tenant_header or "").lower() in OUR_HEADERS:
        yield (
            ("TENANT_HEADER",),
            f"{config.tenant_header} says something else already; name another",
        )
    if config.http_bind == config.admin_bind:
        yield ("HTTP_BIND", "ADMIN_BIND"), "both are one address; write another port in one"
    if config.faults and not config.insecure and not is_loopback(config.admin_bind.host):
        yield (
            ("FAULTS", "ADMIN_BIND"),
            "anyone could inject faults; write ADMIN_BIND=127.0.0.1:8081, or set INSECURE=on",
        )


def _restarts(config: Config) -> Iterator[Contradiction]:
    least, most = config.restart_backoff_min_s, config.restart_backoff_max_s
    if least > most:
        yield (
            ("RESTART_BACKOFF_MIN", "RESTART_BACKOFF_MAX"),
            "the least wait is longer than the greatest; write them the other way round",
        )
    longest_s = Backoff(least, most).longest_total_s(config.restart_intensity)
    if longest_s >= config.restart_period_s:
        never = (
            f"{config.restart_intensity} restarts may wait {longest_s:.4g}s in all, so they never "
            f"fall within {config.restart_period_s:.4g}s and a supervisor would never give up; "
            f"write RESTART_PERIOD={int(longest_s) + 1}s or more, or fewer restarts"
        )
        yield (
            ("RESTART_INTENSITY", "RESTART_PERIOD", "RESTART_BACKOFF_MIN", "RESTART_BACKOFF_MAX"),
            never,
        )


def _retention(config: Config) -> Iterator[Contradiction]:
    least_s = RETENTION_DEADLINES * max(config.payment_deadline_s, config.reservation_ttl_s)
    if config.retention_s < least_s:
        yield (
            ("RETENTION", "PAYMENT_DEADLINE", "RESERVATION_TTL"),
            f"what an order waits for could expire unheard; write RETENTION={least_s:.4g}s or more",
        )


def _production(config: Config) -> Iterator[Contradiction]:
    if config.faults:
        yield ("FAULTS", "APP_ENV"), "nobody breaks production by request; write FAULTS=off"
    if config.stream_replicas == 1:
        yield (
            ("STREAM_REPLICAS", "APP_ENV"),
            "with one replica a lost disk loses accepted orders; write STREAM_REPLICAS=3",
        )
    if config.payment_gateway_url is None:
        yield (
            ("PAYMENT_GATEWAY_URL", "APP_ENV"),
            "the built-in simulator takes no money; set the URL of the payment gateway",
        )


def _in_clear(config: Config) -> bool:
    return any(url.startswith("nats://") for url in config.nats_urls or ())


def _nearest_there(path: Path) -> Path:
    """The path itself, or the closest directory above it that exists."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())
