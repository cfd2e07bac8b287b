"""Samples: what a process weighed at a moment, as whoever watches it writes down, a JSON line each."""

import msgspec


class Sample(msgspec.Struct, frozen=True):
    """A process' memory and open files. `at_ms` is the wall clock."""

    at_ms: int
    pid: int
    rss_bytes: int
    fds: int
