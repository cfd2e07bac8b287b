"""Planted bugs: each turns red what is meant to notice it, and without it the same is green.

C1 is beside the power cuts, in `tests/runtime/chaos/test_rows_disks.py`; `make controls` counts them all.
"""

import importlib.util
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import trio

from messages.record import RawRecord, RecordError
from runtime.audit import Attempt, History, Op, Told, Verdict, audit
from runtime.chaos import campaign, stage
from runtime.chaos.campaign import run_row
from runtime.chaos.http import JSON, Http
from runtime.chaos.instance import EXIT_HUNG, Instance
from runtime.chaos.outcome import Ending
from runtime.chaos.row import Options, Row
from runtime.chaos.stage import Stage
from runtime.explore import Fault, Kind, Order, Schedule, When, draw, run_schedule
from runtime.explore.play import play
from runtime.explore.schedule import Conditions
from runtime.recall import Address

SEEDS = range(150)  # Each of these bugs shows within the first third of them.
SITE = Path(__file__).with_name("site")

Plant = Callable[[str], None]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Plants a bug in this process, for the time of a test."""
    spec = importlib.util.spec_from_file_location("planted", Path(__file__).with_name("planted.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda name: module.PLANTED[name](monkeypatch.setattr)


def environ_with(name: str) -> dict[str, str]:
    """What plants a bug in a process that is started with it."""
    return {"PYTHONPATH": str(SITE), "PLANTED": name} if name else {}


# --- found by exploring ---


def late_charge() -> Iterator[Schedule]:
    """A charge that arrives when it has been given up, asked about, and sent again."""
    fault = Fault(Kind.LATE, When.CALL, 1, 11_000)
    yield Schedule(3, orders=(Order("o1", 100, (("a", 1),)),), faults=(fault,))


def partition() -> Iterator[Schedule]:
    """A process that is cut off while another takes over, and comes back."""
    orders = tuple(Order(f"o{n}", 100 * n, (("a", 1),)) for n in range(1, 7))
    fault = Fault(Kind.PARTITION, When.MS, 250, 2_000)
    yield Schedule(1, Conditions(narrow=False), orders, faults=(fault,))


def seeds() -> Iterator[Schedule]:
    yield from map(draw, SEEDS)


@pytest.mark.parametrize(
    ("bug", "schedules", "invariant"),
    [
        pytest.param("C3", seeds, "I1", id="C3 ack before processing"),
        pytest.param("C4", late_charge, "I2", id="C4 no idempotency key"),
        pytest.param("C5", seeds, "I5", id="C5 dedupe by a window"),
        pytest.param("C6", partition, "I5", id="C6 no fence"),
        pytest.param("C7", seeds, "I1", id="C7 accepted before it is durable"),
        pytest.param("C8", seeds, "I3", id="C8 money in floats"),
        pytest.param("C10", seeds, "I10", id="C10 trace lost on redelivery"),
        pytest.param("C12", seeds, "I5", id="C12 deadlines by the wall clock"),
        pytest.param("C14", seeds, "I3", id="C14 compensating without asking"),
        pytest.param("C15", seeds, "I4", id="C15 released twice"),
    ],
)
@pytest.mark.slow
def test_control_is_caught_by_the_invariant_that_is_meant_for_it(
    plant: Plant, bug: str, schedules: Callable[[], Iterator[Schedule]], invariant: str
) -> None:
    plant(bug)
    caught = next((schedule for schedule in schedules() if invariant in broken_by(schedule)), None)
    assert caught is not None, f"{bug} was planted, and nothing noticed"


def broken_by(schedule: Schedule) -> set[str]:
    return {finding.invariant for finding in run_schedule(schedule).findings}


@pytest.mark.parametrize("schedules", [late_charge, partition])
def test_without_a_bug_the_same_schedule_holds(
    schedules: Callable[[], Iterator[Schedule]],
) -> None:
    for schedule in schedules():
        assert run_schedule(schedule).findings == ()


# --- found in bytes that were damaged where they are kept ---


async def test_control_c11_damaged_bytes_are_refused_and_where_they_are_believed_an_audit_sees_it(
    plant: Plant,
) -> None:
    counts = {"order": 2, "inventory": 2, "payment": 1}
    played = await trio.to_thread.run_sync(play, next(partition()))
    store, journal = played.store, Address("order", 0).journal
    played.store.snapshots.clear()
    at, damaged = next(
        (at, entry.payload.replace(b"GBP", b"GBQ"))
        for at, entry in enumerate(store.entries)
        if entry.subject == journal and b"GBP" in entry.payload
    )
    store.entries[at] = replace(store.entries[at], payload=damaged)

    with pytest.raises(RecordError, match="checksum"):
        RawRecord(damaged)
    plant("C11")
    RawRecord(damaged)
    history = History(counts)
    history.add_all(store.entries)
    assert "I5" in audit(history, ledger=played.ledger).failed


# --- found on real processes ---


@pytest.fixture
async def start(
    tmp_path: Path, nursery: trio.Nursery
) -> AsyncIterator[Callable[..., Awaitable[Instance]]]:
    """Starts an instance with a bug in it (or none), and waits until it takes orders."""
    http, instances = Http(), []

    async def started(bug: str, **environ: str) -> Instance:
        environ = {"SHUTDOWN_GRACE": "2s", **environ_with(bug), **environ}
        instances.append(Instance(tmp_path, http, environ, name=f"instance-{bug or 'good'}"))
        instances[-1].start()
        await instances[-1].wait_ready()
        return instances[-1]

    yield started
    for instance in instances:
        await instance.end()
    await http.aclose()


@pytest.mark.slow
async def test_control_c9_an_actor_that_swallows_everything_cannot_be_stopped_in_order(
    start: Callable[..., Awaitable[Instance]],
) -> None:
    good, bad = await start(""), await start("C9")
    assert await good.stop() == 0
    assert await bad.stop() == EXIT_HUNG


@pytest.mark.slow
async def test_control_c13_a_key_that_means_one_order_to_all_tenants_is_seen_in_the_answers(
    start: Callable[..., Awaitable[Instance]],
) -> None:
    good = await start("", TENANT_HEADER="X-Tenant")
    bad = await start("C13", TENANT_HEADER="X-Tenant")
    assert verdict_of("I8", await ask_as_two_tenants(good)) is Verdict.PASSED
    assert verdict_of("I8", await ask_as_two_tenants(bad)) is Verdict.FAILED


async def ask_as_two_tenants(instance: Instance) -> list[Attempt]:
    """The same order under the same key, by two who do not know of each other."""
    http, journal = Http(), []
    item = {"sku": "hat", "quantity": 1, "unit_price_minor": 255}
    body = {"customer_id": "1", "currency": "GBP", "payment_token": "tok_ok", "items": [item]}
    for tenant in ("one", "two"):
        headers = (*JSON, ("Idempotency-Key", "k-1"), ("X-Tenant", tenant))
        answer = await http.ask(
            "POST", instance.http, "/orders", msgspec.json.encode(body), headers
        )
        journal.append(
            Attempt(
                op=Op.PLACE,
                at_ms=time.time_ns() // 1_000_000,
                key="k-1",
                tenant=tenant,
                order_id=answer.json["order_id"],
                outcome=Told.ACCEPTED,
                code=answer.status,
                items=[("hat", 1, 255)],
                currency="GBP",
                total_minor=255,
            )
        )
    await http.aclose()
    return journal


def verdict_of(invariant: str, journal: list[Attempt]) -> Verdict:
    return audit(History(), journal=journal)[invariant].verdict


async def wipe_the_only_disk(stage: Stage) -> None:
    """What no single broker survives: its store is gone, and nobody has another."""
    [broker] = stage.brokers.all
    async with stage.fault("the store of the only broker is wiped") as fault:
        await trio.sleep(1)
        await broker.kill()
        shutil.rmtree(broker.store)
        fault.struck()
        broker.start()


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_control_c2_one_replica_and_its_disk_wiped_loses_orders_and_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "QUIET_S", 2.0)  # What is lost will never be terminal.
    monkeypatch.setattr(stage, "RECOVERY_S", 2.0)
    row = Row("F26", "a wiped disk", goal="", strikes=(wipe_the_only_disk,), pause_s=(0.0, 0.1))
    outcome = await run_row(row, Options(tmp_path / "run", faults=1, seed=4))
    assert outcome.ending is Ending.FAILED
    assert outcome.lost > 0
