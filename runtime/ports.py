"""Free ports for servers that are about to be started."""

import random
import socket
from pathlib import Path

LOWEST = 10_000  # Below it are the ports that services are known by.
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
EPHEMERAL_USUALLY = 32_768

_given: set[int] = set()
_rng = random.Random()  # noqa: S311  # Spreads processes that start together, and keeps no secret.


def free_port() -> int:
    """A port that nobody has now, and another one each time.

    Below those that the kernel gives to outgoing connections: such a connection would take it while its server is down.
    """
    highest = _lowest_ephemeral() - 1
    while True:
        port = _rng.randint(LOWEST, highest)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port


def _lowest_ephemeral() -> int:
    try:
        lowest = int(EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return EPHEMERAL_USUALLY
    return lowest if lowest > 2 * LOWEST else EPHEMERAL_USUALLY


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
