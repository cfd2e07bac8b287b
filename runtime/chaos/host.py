"""Where a process runs: on this machine as it is, or on a host of its own made out of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Host(Protocol):
    """A machine as far as a process can tell: an address of its own, and commands that run there."""

    @property
    def address(self) -> str:
        """What others reach it by."""
        ...

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` there, under the process id that it is started with."""
        ...


@dataclass(frozen=True, slots=True)
class Loopback:
    """This machine, seen by nobody else."""

    address: str = "127.0.0.1"

    def command(self, argv: Sequence[str]) -> list[str]:
        return list(argv)


LOOPBACK = Loopback()
