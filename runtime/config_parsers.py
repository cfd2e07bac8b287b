"""How each kind of value in the environment is written: text in, our own words out, or a sentence on what to write.

environs reads more than is meant (`1_000`, Arabic digits, a duration without its unit, an empty string), hence these.
A refusal completes the sentence "<VARIABLE> ..." and shows what was seen, except where that may hold a secret.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import SplitResult, urlsplit

from environs import ValidationError

UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
DURATION_MAX_S = 3650 * UNITS_S["d"]  # Ten years: JetStream counts nanoseconds in 64 bits.
FILE_BYTES_MAX = 64 * 1024  # Credentials and certificates take a few KiB; more is another file.
SHOWN_MAX = 80

_DURATION = re.compile(r"([0-9]{1,10}(?:\.[0-9]{1,3})?)(ms|s|m|h|d)")
_DIGITS = re.compile(r"[0-9]{1,10}")
_RATIO = re.compile(r"[01]?\.?[0-9]{0,12}")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+):([0-9]{1,5})")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")

E = TypeVar("E", bound=StrEnum)


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def seen(value: str) -> str:
    """The value as an error shows it: in one line, bounded, with nothing invisible in it."""
    shown = ascii(value)
    return shown if len(shown) <= SHOWN_MAX else f"{shown[:SHOWN_MAX]}... ({len(value)} characters)"


def text(value: str) -> str:
    if not value:
        raise ValidationError("is empty; write a value, or unset it to get the default")
    if not value.isprintable() or value != value.strip():
        raise ValidationError("holds control characters or blanks at its ends; write it without")
    return value


def token(value: str) -> str:
    """Something that is safe in subjects, headers and file names."""
    if not _NAME.fullmatch(text(value)):
        raise ValidationError(f"is {seen(value)}; write 1 to 64 of A-Z a-z 0-9 - _")
    return value


def integer(least: int, most: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not _DIGITS.fullmatch(text(value)) or not least <= int(value) <= most:
            raise ValidationError(f"is {seen(value)}; write a whole number from {least} to {most}")
        return int(value)

    return parse


def replicas(value: str) -> int:
    if text(value) not in ("1", "3", "5"):
        raise ValidationError(
            f"is {seen(value)}; write 1, 3 or 5 (an even number survives no more failures)"
        )
    return int(value)


def ratio(value: str) -> float:
    share = float(value) if _RATIO.fullmatch(text(value)) and value != "." else 2.0
    if share > 1:
        raise ValidationError(f"is {seen(value)}; write a number from 0 to 1, such as 0.01")
    return share


def duration(value: str) -> float:
    """Seconds, from a number with its unit."""
    match = _DURATION.fullmatch(text(value))
    duration_s = float(match[1]) * UNITS_S[match[2]] if match else 0.0
    if not 0 < duration_s <= DURATION_MAX_S:
        raise ValidationError(
            f"is {seen(value)}; write a number above 0 with its unit, such as 500ms, 5s, 15m, 7d "
            "(at most 3650d)"
        )
    return duration_s


def switch(value: str) -> bool:
    match text(value).lower():
        case "on" | "true" | "yes" | "1":
            return True
        case "off" | "false" | "no" | "0":
            return False
        case _:
            raise ValidationError(f"is {seen(value)}; write on or off")


def choice(kind: type[E]) -> Callable[[str], E]:
    def parse(value: str) -> E:
        try:
            return kind(text(value).lower())
        except ValueError:
            allowed = ", ".join(kind)
            raise ValidationError(f"is {seen(value)}; write one of: {allowed}") from None

    return parse


def address(value: str) -> Address:
    match = _ADDRESS.fullmatch(text(value))
    host, port = (match[1].strip("[]"), int(match[2])) if match else ("", 0)
    if not _is_host(host) or not 1 <= port <= 65_535:
        raise ValidationError(
            f"is {seen(value)}; write HOST:PORT with a port from 1 to 65535, such as 127.0.0.1:8080 "
            "or [::1]:8080"
        )
    return Address(host, port)


def broker_urls(value: str) -> tuple[str, ...]:
    """NATS servers of one cluster, comma-separated."""
    urls = tuple(_broker_url(item.strip()) for item in text(value).split(","))
    if len(set(urls)) < len(urls):
        raise ValidationError("names a server twice; write each one once")
    if len({urlsplit(url).scheme for url in urls}) > 1:
        raise ValidationError("mixes nats:// and tls://; write the same scheme for all servers")
    return urls


def web_url(value: str) -> str:
    """An http or https URL without query, and without a slash at its end."""
    parts = _url_parts(text(value), ("http", "https"), "http://127.0.0.1:9000")
    if parts.query or parts.fragment:
        raise ValidationError("has a query or a fragment; write the URL up to its path")
    return value.rstrip("/")


def readable_file(value: str) -> Path:
    """A file that is there, can be read, and has something in it."""
    return _checked(path(value), shown=seen(value))


def secret_file(value: str) -> Path:
    """The same, and nobody but its owner may open it. Not shown: it may be the secret itself, put there by mistake."""
    file_path = _checked(path(value), shown="a file (not shown)")
    mode = file_path.stat().st_mode & 0o777
    if mode & 0o077:
        raise ValidationError(
            f"names a file that others can open (mode {mode:04o}); run: chmod 600 {file_path}"
        )
    return file_path


def path(value: str) -> Path:
    return Path(text(value)).expanduser()


def new_file(value: str) -> Path:
    """A file to write to, in a directory that exists."""
    file_path = path(value)
    if file_path.is_dir() or not file_path.absolute().parent.is_dir():
        raise ValidationError(f"names {seen(value)}; write a file name in a directory that exists")
    return file_path


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _checked(file_path: Path, shown: str) -> Path:
    try:
        with file_path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ValidationError(
            f"names {shown} that cannot be read ({error.strerror}); write the path of one that can"
        ) from None
    if not content.strip():
        raise ValidationError(f"names {shown} that is empty; write the path of the right one")
    if len(content) > FILE_BYTES_MAX:
        raise ValidationError(
            f"names {shown} of more than {FILE_BYTES_MAX} bytes; write the path of the right one"
        )
    return file_path


def _broker_url(value: str) -> str:
    if not value:
        raise ValidationError("has an empty item; write URLs with one comma between them")
    parts = _url_parts(value, ("nats", "tls"), "nats://127.0.0.1:4222")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValidationError("has a path or a query; write no more than scheme, host and port")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or 4222}"


def _url_parts(value: str, schemes: tuple[str, ...], example: str) -> SplitResult:
    """The parts of a URL which names its host and, lest it end up in a log, no password."""
    if "@" in value:
        raise ValidationError(
            "has a user name or password in it (not shown); write it without, and put credentials "
            "in a file"
        )
    try:
        parts = urlsplit(value)
        fits = parts.scheme in schemes and _is_host(parts.hostname or "") and parts.port != 0
    except ValueError:  # A port out of range, a broken IPv6 address.
        fits = False
    if not fits:
        raise ValidationError(
            f"is {seen(value.partition('?')[0])}; write {' or '.join(f'{s}://' for s in schemes)} with host and port, "
            f"such as {example}"
        )
    return parts


def _is_host(host: str) -> bool:
    if _HOST.fullmatch(host):
        return True
    try:
        return ip_address(host).version == 6
    except ValueError:
        return False
