"""Partitions and loss between hosts: one nft table in each namespace, replaced as a whole.

What is cut silently gets no further, as with a broken cable: no reset, no error. It is dropped
where it arrives, so each direction of each pair can be cut by itself.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from runtime.chaos.host import Host
from runtime.chaos.tools import run

TABLE: Final = "inet orders_cuts"


@dataclass(frozen=True, slots=True)
class Cut:
    """Of a hundred packets from `talking` that arrive at `deaf`, drop so many."""

    deaf: Host
    talking: tuple[Host, ...]
    percent: int = 100


class Net:
    """The cables between hosts: whole, or cut."""

    def __init__(self, hosts: Iterable[Host]) -> None:
        self.hosts = tuple(hosts)

    def cut(self, cuts: Iterable[Cut]) -> None:
        """Make these the cuts that there are."""
        cuts = list(cuts)
        for host in self.hosts:
            _set_rules(host, [cut for cut in cuts if cut.deaf == host])

    def heal(self) -> None:
        self.cut(())

    def dropped(self) -> int:
        """How many packets the cuts that there are have stopped so far."""
        return sum(map(_count_dropped, self.hosts))


# --- named partitions ---


def apart(one: Sequence[Host], other: Sequence[Host]) -> Iterator[Cut]:
    """Neither side hears the other."""
    yield from one_way(one, other)
    yield from one_way(other, one)


def one_way(talking: Sequence[Host], deaf: Sequence[Host]) -> Iterator[Cut]:
    """What `talking` sends does not reach `deaf`; the other way is open."""
    for host in deaf:
        yield Cut(host, tuple(talking))


def ring_of_majorities(hosts: Sequence[Host]) -> Iterator[Cut]:
    """Every host hears itself and a majority with its neighbours, and no two hear the same one."""
    heard = len(hosts) // 2
    for number, host in enumerate(hosts):
        ring = [hosts[(number + step) % len(hosts)] for step in range(1, len(hosts))]
        yield Cut(host, tuple(ring[heard:]))


def lossy(hosts: Sequence[Host], percent: int) -> Iterator[Cut]:
    """Between any two of them, so many of a hundred packets get lost, each way."""
    for host in hosts:
        yield Cut(host, tuple(peer for peer in hosts if peer != host), percent)


# --- nft ---


def _set_rules(host: Host, cuts: Sequence[Cut]) -> None:
    script = f"table {TABLE} {{\n}}\ndelete table {TABLE}\n"  # Also where there was none.
    if cuts:
        rules = "\n".join(map(_rule, cuts))
        script += (
            f"table {TABLE} {{\nchain arriving {{\n"
            f"type filter hook input priority 0; policy accept;\n{rules}\n}}\n}}\n"
        )
    run(*host.command(["nft", "-f", "-"]), stdin=script)


def _rule(cut: Cut) -> str:
    talking = ", ".join(host.address for host in cut.talking)
    chance = "" if cut.percent == 100 else f"numgen random mod 100 < {cut.percent} "
    return f"ip saddr {{ {talking} }} {chance}counter drop"


def _count_dropped(host: Host) -> int:
    listed = run(*host.command(["nft", "list", "ruleset"])).split()
    counts = (listed[place + 1] for place, word in enumerate(listed) if word == "packets")
    return sum(map(int, counts))
