"""Rows about the network between hosts: partitions, one way or both, and packets that get lost.

Brokers, instance and provider each have a host of their own; customers and the auditor stand
outside and reach all of them, whatever is cut.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from itertools import permutations
from typing import Final

import trio

from runtime.chaos.brokers import Broker, Ground
from runtime.chaos.host import Host
from runtime.chaos.hosts import hosts_missing, open_hosts
from runtime.chaos.nets import Cut, Net, apart, lossy, one_way, ring_of_majorities
from runtime.chaos.outcome import percentile
from runtime.chaos.process import wait_for
from runtime.chaos.row import NotFiredError, Options, Row, Setting, Strike
from runtime.chaos.stage import Stage

LASTS_S: Final = (5.0, 20.0)  # From and to; nats gives a silent connection up after some 9 s.
LOSSY_S: Final = 15.0
SERVING_S: Final = 90.0
SEEN_S: Final = 10.0
RECOVERY_P95_S: Final = 20.0

Cuts = Iterable[Cut]


# --- F10: nobody hears the other side ---


async def leader_alone(stage: Stage) -> tuple[str, Cuts]:
    leader = await stage.brokers.wait_leader()
    others = [host for host in _hosts(stage) if host != leader.host]
    return f"{leader.name}, the leader, alone", apart([leader.host], others)


async def leader_from_peers(stage: Stage) -> tuple[str, Cuts]:
    leader = await stage.brokers.wait_leader()
    peers = [broker.host for broker in stage.brokers.all if broker is not leader]
    return f"{leader.name}, the leader, from its peers only", apart([leader.host], peers)


async def majority_and_minority(stage: Stage) -> tuple[str, Cuts]:
    """The instance is on the side of the majority."""
    minority = stage.rng.choice(await stage.brokers.followers())
    others = [host for host in _hosts(stage) if host != minority.host]
    return f"{minority.name} from the majority", apart([minority.host], others)


async def instance_with_the_minority(stage: Stage) -> tuple[str, Cuts]:
    broker = stage.rng.choice(stage.brokers.all)
    minority = [broker.host, stage.setting.instance_host]
    others = [host for host in _hosts(stage) if host not in minority]
    return f"{broker.name} and the instance from the majority", apart(minority, others)


async def majorities_in_a_ring(stage: Stage) -> tuple[str, Cuts]:
    return "a ring of majorities", ring_of_majorities(_broker_hosts(stage))


async def instance_from_brokers(stage: Stage) -> tuple[str, Cuts]:
    setting = stage.setting
    return "the instance from the brokers", apart([setting.instance_host], _broker_hosts(stage))


async def instance_from_provider(stage: Stage) -> tuple[str, Cuts]:
    setting = stage.setting
    cuts = apart([setting.instance_host], [setting.gateway_host])
    return "the instance from the provider", cuts


_OF_ONE = (instance_from_brokers, instance_from_provider)
_OF_THREE = (
    leader_alone,
    majority_and_minority,
    leader_from_peers,
    majorities_in_a_ring,
    instance_with_the_minority,
    *_OF_ONE,
)


async def partition(stage: Stage) -> None:
    """The next of the partitions that there are, for a while."""
    kinds = _OF_ONE if stage.brokers.replicas == 1 else _OF_THREE
    name, cuts = await kinds[stage.fired % len(kinds)](stage)
    await _cut(stage, name, cuts, stage.rng.uniform(*LASTS_S))


# --- F11: one side does not hear the other ---


async def partition_one_way(stage: Stage) -> None:
    """The next of all directions of all pairs between which anything passes."""
    pairs = [*permutations(stage.brokers.all, 2)]
    instance, provider = stage.setting.instance_host, stage.setting.gateway_host
    near = await _broker_of_the_instance(stage)
    ways = [
        *((f"from {one.name} to {other.name}", one.host, other.host) for one, other in pairs),
        (f"from the instance to {near.name}", instance, near.host),
        (f"from {near.name} to the instance", near.host, instance),
        ("from the instance to the provider", instance, provider),
        ("from the provider to the instance", provider, instance),
    ]
    name, talking, deaf = ways[stage.fired % len(ways)]
    await _cut(stage, f"nothing {name}", one_way([talking], [deaf]), stage.rng.uniform(*LASTS_S))


async def _broker_of_the_instance(stage: Stage) -> Broker:
    address = stage.setting.instance_host.address
    for broker in stage.brokers.all:
        told = await broker.ask("/connz") or {}
        if any(connection["ip"] == address for connection in told.get("connections", ())):
            return broker
    raise NotFiredError("the instance is connected to no broker")


# --- F12: some packets get lost ---


def lose_packets(percent: int) -> Strike:
    async def strike(stage: Stage) -> None:
        name = f"{percent} % of all packets lost"
        accepted = len(stage.load.accepted)
        await _cut(stage, name, lossy(_hosts(stage), percent), LOSSY_S)
        rate = (len(stage.load.accepted) - accepted) / LOSSY_S
        stage.notes.append(f"{name}: {rate:.1f} orders/s accepted meanwhile")

    return strike


# --- all of them ---


async def _cut(stage: Stage, name: str, cuts: Cuts, lasts_s: float) -> None:
    """Make the cuts for a while; they count once they have stopped something."""
    net = Net(_hosts(stage))
    async with stage.fault(name) as fault:
        try:
            net.cut(cuts)
            if not await wait_for(partial(_has_stopped_something, net), within_s=SEEN_S):
                raise NotFiredError("nothing went that way")
            fault.struck()
            await trio.sleep(lasts_s)
        finally:
            net.heal()
    await stage.brokers.wait_serving(SERVING_S)


async def _has_stopped_something(net: Net) -> bool:
    return net.dropped() > 0


def _hosts(stage: Stage) -> list[Host]:
    setting = stage.setting
    return [*_broker_hosts(stage), setting.instance_host, setting.gateway_host]


def _broker_hosts(stage: Stage) -> list[Host]:
    return [broker.host for broker in stage.brokers.all]


async def recovers_in_time(stage: Stage) -> None:
    """Hold the row to its goal."""
    p95_s = percentile(stage.recoveries_s, 95)
    if p95_s > RECOVERY_P95_S:
        stage.findings.append(f"recovery p95 {p95_s:.1f} s, more than {RECOVERY_P95_S:g} s")


@asynccontextmanager
async def hosts_of_their_own(options: Options) -> AsyncIterator[Setting]:
    """A host each for every broker, the instance and the provider."""
    names = [f"broker-{number}" for number in range(1, options.brokers + 1)]
    with open_hosts([*names, "instance", "gateway"]) as hosts:
        grounds = [Ground(hosts[name], options.directory / name) for name in names]
        yield Setting(grounds, hosts["instance"], hosts["gateway"])


_OURS = partial(
    Row, missing=hosts_missing, setting=hosts_of_their_own, judge=recovers_in_time, in_mix=False
)

ROWS = (
    _OURS(
        "F10",
        "partitions between the hosts",
        goal="0/0; healed to accepted p95 <= 20 s",
        strikes=(partition,),
        faults=7,
    ),
    _OURS(
        "F11",
        "partitions in one direction, each direction of each pair",
        goal="0/0; healed to accepted p95 <= 20 s",
        strikes=(partition_one_way,),
        faults=10,
    ),
    _OURS(
        "F12L",
        "1, 10 and 30 % of all packets lost",
        goal="0/0; throughput under each is told",
        strikes=(lose_packets(1), lose_packets(10), lose_packets(30)),
        faults=3,
    ),
)
