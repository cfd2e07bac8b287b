"""The tail: one reader of the whole log for all shards of this process. Each record is fetched and decoded once.

A shard joins where its cursor stands. What it has missed is usually still in the window of newest records; if not, the
reader goes back, and shards that have heard those records already are passed over. Facts that were said in this
process are not decoded at all: the shard that says them leaves them here, and the record's own bytes find them.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from messages.record import Cursor, Envelope, Letter
from messages.routing import Routes
from runtime.addressing import Addressed, Addressing
from runtime.clock import LogClock
from runtime.faults import Faults
from runtime.faults.hooks import is_doubled
from runtime.log import Entry, Log
from runtime.mailbox import Content, Delivery, Mailbox
from runtime.recall import JOURNALS, STREAM_PREFIX, Address
from runtime.vitals import Vitals

WINDOW_FACTS = 20_000  # Some seconds' worth at full load, some ten megabytes: what a restarted shard has missed.
SAID_MAX = 1_000  # Records under way; each shard has one, so this only bounds what crashed shards leave behind.

_RECORDS = f"{JOURNALS}."


@dataclass(slots=True)
class _Member:
    """One shard's mailbox. It has been given everything up to `seq`, and `skip` facts of what comes next for it."""

    mailbox: Mailbox
    seq: int
    skip: int


class Tail:
    """Delivers facts to the mailboxes of this process' shards, in the log's order."""

    def __init__(
        self, log: Log, routes: Routes, clock: LogClock, faults: Faults | None = None
    ) -> None:
        self._log, self._clock, self._faults = log, clock, faults
        self._addressing = Addressing(routes)
        self._members: dict[Address, _Member] = {}
        self._window: deque[tuple[int, Addressed]] = deque()
        self._window_facts = 0
        self._window_after = 0  # Everything newer than this, up to `position`, is in the window.
        self._said: OrderedDict[int, Sequence[Envelope]] = OrderedDict()
        self._joined = trio.Event()
        self._rewind: trio.CancelScope | None = None
        self.position = 0
        self._progress_s = 0.0

    def vitals(self, newest: Vitals | None) -> Vitals:
        """What it is busy with: it is behind until it has read what the `newest` of the shards here has appended."""
        seq, since_s = (newest.seq, newest.progress_s) if newest is not None else (0, 0.0)
        progress_s = max(self._progress_s, since_s)
        return Vitals(0, 0, seq <= self.position, progress_s, self.position)

    def say(self, record: bytes, facts: Sequence[Envelope]) -> None:
        """Leave the facts of a record that is about to be appended, so that nobody here decodes them again."""
        # Not by owner and turn: an earlier process of the same name has counted the same ones.
        self._said[hash(record)] = facts
        if len(self._said) > SAID_MAX:
            self._said.popitem(last=False)

    def join(self, address: Address, mailbox: Mailbox, cursor: Cursor) -> None:
        """Deliver to this mailbox everything after `cursor`, from now until `leave`."""
        member = self._members[address] = _Member(mailbox, cursor.seq, cursor.skip)
        if self._window_after <= cursor.seq <= self.position:
            for seq, addressed in self._window:
                if address in addressed:
                    _hand_over(member, seq, addressed[address])
            mailbox.read_seq = self.position
        elif self._rewind is not None:
            self._rewind.cancel()
        self._joined.set()

    def burial_of(self, entry: Entry, why: str) -> tuple[Address, Letter]:
        """Who sets aside a record that nobody can read, once it reads on, and by which letter."""
        return self._addressing.burial_of(entry, why)

    def leave(self, address: Address) -> None:
        self._members.pop(address, None)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the log for ever; a supervised child."""
        self._members.clear()
        self._joined = trio.Event()
        self._forget_window(0)
        task_status.started()
        await self._joined.wait()
        while True:
            behind = [member.seq for member in self._members.values()]
            after = min(behind, default=self.position)
            if not self._window_after <= after <= self.position:
                self._forget_window(after)
            with trio.CancelScope() as self._rewind:
                await self._follow()

    async def _follow(self) -> None:
        async with self._log.read(self.position, [f"{STREAM_PREFIX}.>"]) as reader:
            while True:
                entries = await reader.take()
                self._progress_s = trio.current_time()
                # A shard that joined meanwhile may have to hear older ones first: then these come again.
                await trio.lowlevel.checkpoint_if_cancelled()
                for entry in entries:
                    if self._faults is not None and await is_doubled(self._faults, entry):
                        self._take(entry)
                    self._take(entry)
                for member in list(self._members.values()):
                    if member.seq < self.position:
                        member.seq = member.mailbox.read_seq = self.position
                    member.mailbox.nudge()
                for member in list(self._members.values()):
                    if not member.mailbox.has_room:
                        await member.mailbox.wait_room()

    def _take(self, entry: Entry) -> None:
        self._clock.see(entry.time_ms)
        addressed = self._address(entry)
        self.position = entry.seq
        for address, facts in addressed.items():
            member = self._members.get(address)
            if member is not None:
                _hand_over(member, entry.seq, facts)
        if addressed:
            self._window.append((entry.seq, addressed))
            self._window_facts += sum(map(len, addressed.values()))
        while self._window_facts > WINDOW_FACTS:
            self._window_after, dropped = self._window.popleft()
            self._window_facts -= sum(map(len, dropped.values()))

    def _address(self, entry: Entry) -> Addressed:
        if not entry.subject.startswith(_RECORDS):
            return self._addressing.of_other(entry)
        return self._addressing.of_record(entry, self._said.pop(hash(entry.payload), None))

    def _forget_window(self, after: int) -> None:
        self._window.clear()
        self._window_facts = 0
        self._window_after = self.position = after


def _hand_over(member: _Member, seq: int, facts: Sequence[tuple[int, Content]]) -> None:
    """Deliver one record's facts for one shard, less those that it has been given already."""
    if seq <= member.seq:
        return
    skip, member.seq, member.skip = member.skip, seq, 0
    for ordinal in range(skip, len(facts)):
        index, content = facts[ordinal]
        is_last = ordinal == len(facts) - 1
        member.mailbox.deliver(Delivery(seq, index, ordinal, is_last, content))
    member.mailbox.read_seq = seq
