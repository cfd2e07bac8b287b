"""The simulated provider's ledger: what its file remembers, and what it refuses to be."""

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from runtime.gateway_contract import Request
from runtime.simulator import Simulator
from runtime.simulator_ledger import Ledger, LedgerError, Line, open_ledger

CHARGE_BODY = b'{"reference":"o1","amount_minor":1530,"currency":"GBP","token":"tok_ok"}'


def capture(n: int) -> Line:
    return Line(f"ch_{n}", "capture", f"o{n}", 1530, "GBP", f"k{n}", f"ch_{n}", 1_700, "tok_ok")


def refund(n: int, amount_minor: int) -> Line:
    return Line(f"re_{n}", "refund", f"o{n}", amount_minor, "GBP", f"r{n}", f"ch_{n}", 1_700)


@pytest.mark.parametrize("fsync", [False, True])
def test_lines_are_found_again_after_a_restart(tmp_path: Path, fsync: bool) -> None:
    path = tmp_path / "new" / "ledger.jsonl"
    lines = (capture(1), refund(1, 30), capture(2))
    for kept in range(len(lines)):
        with open_ledger(path, fsync=fsync) as ledger:
            assert ledger.lines == lines[:kept]
            ledger.append(lines[kept])

    with open_ledger(path) as ledger:
        assert ledger.lines == lines
        assert ledger.by_key("r1") == lines[1]
        assert ledger.capture("ch_1") == lines[0]
        assert ledger.capture("re_1") is None
        assert ledger.captures("o1") == [lines[0]]
        assert (ledger.refunded_minor(lines[0]), ledger.refunded_minor(lines[2])) == (30, 0)


async def test_a_key_keeps_its_charge_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    replies = []
    for body in (CHARGE_BODY, CHARGE_BODY, CHARGE_BODY.replace(b"tok_ok", b"tok_no")):
        with open_ledger(path) as ledger:
            request = Request("POST", "/charges", key="k1", body=body)
            replies.append(await Simulator(ledger).send(request))

    assert replies[0].status == 201
    assert replies[1] == replies[0]
    assert replies[2].status == 422
    assert len(path.read_bytes().splitlines()) == 1


def test_a_killed_process_keeps_what_it_booked(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    program = f"""
import os, pathlib
from runtime.simulator_ledger import Line, open_ledger
with open_ledger(pathlib.Path({str(path)!r})) as ledger:
    ledger.append(Line("ch_1", "capture", "o1", 1530, "GBP", "k1", "ch_1", 1_700, "tok_ok"))
    os.kill(os.getpid(), {int(signal.SIGKILL)})
"""
    killed = subprocess.run([sys.executable, "-c", program], check=False)

    assert killed.returncode == -signal.SIGKILL
    with open_ledger(path) as ledger:
        assert ledger.lines == (capture(1),)


def test_a_line_cut_off_by_a_crash_never_happened(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with open_ledger(path) as ledger:
        ledger.append(capture(1))
        ledger.append(capture(2))
    whole = path.read_bytes()
    first = whole.splitlines(keepends=True)[0]

    for cut in range(len(first), len(whole)):
        path.write_bytes(whole[:cut])
        with open_ledger(path) as ledger:
            assert ledger.lines == (capture(1),)
            ledger.append(capture(2))
        assert path.read_bytes() == whole


@pytest.mark.parametrize("damage", [b"\n", b"{}\n", b"\x00\x00\n", b'{"id": 1}\n', b"\xff\n"])
def test_a_damaged_line_is_named_and_nothing_is_lost(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "ledger.jsonl"
    with open_ledger(path) as ledger:
        ledger.append(capture(1))
    damaged = path.read_bytes() + damage + path.read_bytes()
    path.write_bytes(damaged)

    with pytest.raises(LedgerError, match=r"ledger\.jsonl, line 2 "), open_ledger(path):
        pass
    assert path.read_bytes() == damaged


def test_two_processes_never_share_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"

    with (
        open_ledger(path),
        pytest.raises(LedgerError, match="in use by another process"),
        open_ledger(path),
    ):
        pass
    with open_ledger(path):
        pass  # Free again.


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """A full disk, as far as this process can tell."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room_bytes", [0, 10])
async def test_a_full_disk_takes_no_money_and_no_half_lines(
    tmp_path: Path, room_bytes: int
) -> None:
    path = tmp_path / "ledger.jsonl"
    request = Request("POST", "/charges", key="k1", body=CHARGE_BODY)
    with open_ledger(path) as ledger:
        ledger.append(capture(2))
        before = path.read_bytes()
        simulator = Simulator(ledger)
        with file_size_limit(len(before) + room_bytes):
            full = await simulator.send(request)
        assert full.status == 500
        assert ledger.lines == (capture(2),)
        assert path.read_bytes() == before

        assert (await simulator.send(request)).status == 201  # There is room again.


def test_charges_of_one_reference_are_refunded_apart() -> None:
    twin = msgspec.structs.replace(capture(2), reference="o1")
    ledger = Ledger()
    for line in (capture(1), twin, refund(1, 30)):
        ledger.append(line)

    assert ledger.captures("o1") == [capture(1), twin]
    assert [ledger.refunded_minor(line) for line in (capture(1), twin)] == [30, 0]
