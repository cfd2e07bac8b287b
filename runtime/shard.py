"""The shard host: the one loop that hears, decides, commits and only then acts.

```
take over -> recall -> [ take what waits -> react to each -> append one record -> answer, call, arm, show ] -> ...
```

Whatever arrived while a record was being appended goes into the next one; a step that nobody waits for (a sale, once
the order is confirmed) rides with the next record that somebody does wait for, or goes alone a moment later.

Nothing here recovers from failure: an exception ends the shard, its supervisor starts it again, and the log says what
had happened. And if we die? Before the append, nothing of the group happened. After it, the record is found at
recovery: calls owed are issued again with the same key, deadlines are armed again, views are written again; only askers
lack an answer, and ask again.
"""

import math
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field

import msgspec
import trio
from betterproto import Message
from opentelemetry.trace import SpanKind

from actors.actor import (
    NOTHING,
    Actor,
    Answer,
    CallAnswered,
    Due,
    Heard,
    Outcome,
    State,
    Step,
)
from messages.codec import EncodeError
from messages.record import Change, Cursor, Envelope, Letter, Record, encode_record
from runtime.alarms import Alarms
from runtime.archive import RowsAwayError, Segment
from runtime.clock import LogClock
from runtime.faults import Faults, points
from runtime.faults.hooks import ShardHooks
from runtime.gaps import check_whole
from runtime.gateway import Gateway
from runtime.gateway_calls import Calls
from runtime.letters import letter_about, order_of, store_letters
from runtime.log import FencedError, Log, LogError, RefusedError, SupersededError
from runtime.mailbox import Ask, Delivery, Item, Mailbox, Replayed, Wake, fail_asks
from runtime.past import Past
from runtime.recall import Address, Memory, Taken, keep, lend_rows
from runtime.strangers import owners_since, recall_own, set_aside
from runtime.succession import StrangeRecordError, instance_of, owner_name
from runtime.tail import Tail
from runtime.tracing import Span, Tracer
from runtime.views import Views
from runtime.vitals import Vitals

GROUP_FACTS_MAX = 500  # Below 20 ms of decisions, so that nobody waits long for the loop.
GROUP_BYTES_MAX = 400_000  # Before framing; and never more than half of what the broker takes.
GROUP_LETTERS_MAX = (
    50  # An append each, so that a flood of rubbish keeps good orders waiting for milliseconds.
)
FACT_BYTES = 400  # At most, less the items it names: an id, a reason, an envelope with its trace.
ITEM_BYTES = 80  # Of a fact: a SKU has 64 characters at most, and a quantity.
SNAPSHOT_RECORDS = (
    2_000  # Small ones between two snapshots: 16,000 changes at most, read back in 0.1 s.
)
CHANGE_BYTES = 80  # Of a changed key, beside the key and its state: the trace and the framing.
# For steps that can wait. Records an order at 50 orders/s: 9.1 without, 6.9 with 0.05 s, 6.6 with 0.2 s as with 1 s.
PATIENCE_S = 0.2
CURSOR_LAG_MAX = (
    10_000  # Entries read without a record of ours, after which the cursor alone is worth one.
)
FENCED_TAKE_OVERS = (
    3  # At a read and an append each, an owner has to be busy to be ahead of all of them.
)
LAST_SNAPSHOT_S = 2.0
READ_BACK_RECORDS = (
    200  # A start that had to read so many leaves a snapshot at once: the next may come soon.
)
FIRST_SNAPSHOT_S = 60.0  # After a recovery, so that the next one need not read what this one read.

_pack = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the shards of one process share."""

    log: Log
    tail: Tail
    clock: LogClock
    gateway: Gateway
    views: Views
    tracer: Tracer
    instance_id: str
    retention_ms: int
    faults: Faults | None = None
    accept_loss: bool = False


@dataclass(slots=True)
class _Group:
    """What one record will hold, and what follows once it is stored."""

    cursor: Cursor
    items: list[Item] = field(default_factory=list)
    states: dict[str, State | None] = field(default_factory=dict)
    changes: dict[str, Change] = field(default_factory=dict)
    facts: list[Envelope] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    answers: list[tuple[Ask, Answer]] = field(default_factory=list)
    answered: list[CallAnswered] = field(default_factory=list)
    buried: list[Item] = field(default_factory=list)
    woken: list[str] = field(default_factory=list)
    again: set[str] = field(default_factory=set)
    """Keys that heard something which they may have heard before: what they call for now may have been done."""
    spans: list[Span] = field(default_factory=list)
    bytes_so_far: int = 0
    can_wait: bool = True
    ends_s: float = math.inf
    """When a group that can wait has waited long enough."""

    @property
    def is_empty(self) -> bool:
        return not (self.changes or self.facts or self.letters)

    def bury(self, letter: Letter) -> None:
        """Set something aside, with the record that moves past it."""
        self.letters.append(letter)
        self.bytes_so_far += len(letter.payload)
        self.can_wait = False


class Shard:
    """One incarnation of one shard. It lives as long as nothing goes wrong."""

    def __init__(
        self,
        address: Address,
        actor: Actor,
        around: Surroundings,
        past: Past,
        on_taking: Callable[[], None] = lambda: None,
        incarnation: int = 1,
    ) -> None:
        self.address, self._journal = address, address.journal
        self._on_taking = on_taking
        self.mailbox = Mailbox()
        self._actor, self._around, self._past = actor, around, past
        self._hooks = ShardHooks(around.faults, address) if around.faults is not None else None
        self._incarnation = incarnation
        self._owner = ""
        self._turn = 0
        self._memory = Memory(actor)
        self._committed = Cursor()
        self._calls: Calls
        self._alarms = Alarms(around.clock)
        self._nursery: trio.Nursery
        self._is_snapshotting = False
        self._wanted: Segment | None = None
        """Of the archive: what waits in the mailbox cannot be decided before its rows are here."""
        self.is_taking = False
        """True from the take-over to the end: asks are answered."""
        self._is_idle = False
        self._progress_s = trio.current_time()

    @property
    def vitals(self) -> Vitals:
        """What it is busy with, for those who watch."""
        waiting, calls = len(self.mailbox), len(self._calls)
        return Vitals(waiting, calls, self._is_idle, self._progress_s, self._memory.seq)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Recover, take over, and hear facts until something fails; a supervised child.

        Raises:
            SupersededError: another instance owns this shard now.
            GapError: what it has to know has expired, or was lost with a part of the log.
            LogError: the log's; what was being appended is in the log or is not.
            Exception: whatever `react` raised; the fact is noted as a suspect.
        """
        around = self._around
        if self._hooks is not None:
            await self._hooks.reach(points.BEFORE_TAKE_OVER)
        await self._take_over()
        if self._hooks is not None:
            await self._hooks.reach(points.AFTER_TAKE_OVER)
        try:
            async with trio.open_nursery() as self._nursery:
                calls = Calls(self._nursery, around.gateway, around.tracer, self.mailbox.tell)
                with closing(calls) as self._calls:
                    self._nursery.start_soon(self._alarms.run, self.mailbox.tell)
                    self._nursery.start_soon(self._renew)
                    self._resume()
                    around.tail.join(self.address, self.mailbox, self._memory.cursor)
                    self.is_taking = True
                    self._on_taking()
                    task_status.started()
                    await self._hear()
        finally:
            self._past.owned_seq = max(self._past.owned_seq, self._memory.seq)
            self.is_taking = False
            around.tail.leave(self.address)
            self.mailbox.close()

    # --- start ---

    async def _take_over(self) -> None:
        """Append a first record, which fences off whoever owned the shard before, and recall what it knew by then."""
        around, journal = self._around, self.address.journal
        mine_seq = await self._append_first()
        self._past.owned_seq = mine_seq
        self._memory = await self._recall(mine_seq)
        self._refuse_to_fight(self._memory.owner)
        await check_whole(
            around.log, self.address, self._memory, mine_seq, accept_loss=around.accept_loss
        )
        if self._memory.unsaved >= READ_BACK_RECORDS:
            self._memory.unsaved = max(self._memory.unsaved, SNAPSHOT_RECORDS)
        self._committed = self._memory.cursor
        mine = await around.log.last(journal)
        if mine is not None:
            around.clock.see(mine.time_ms)

    async def _append_first(self) -> int:
        """Append on top of what was read: arriving late, when another owns the shard, it then takes nothing from him.

        Against a busy owner, who reads before he appends is always late; so the first time, after some attempts, on top
        of whatever is there. Later only while nobody else has appended. May be cancelled, as the record knows nothing.
        """
        log, journal = self._around.log, self.address.journal
        for _ in range(FENCED_TAKE_OVERS):
            newest = await log.last(journal)
            newest_seq = newest.seq if newest is not None else 0
            if 0 < self._past.owned_seq < newest_seq:
                for owner in await owners_since(
                    log, self.address, self._past.owned_seq, newest_seq
                ):
                    self._refuse_to_fight(owner)
            try:
                record = self._begin(newest_seq)
                return await log.append(journal, record, expect=newest_seq, cancellable=True)
            except FencedError:
                if self._past.owned_seq:
                    raise
        return await log.append(journal, self._begin(None), cancellable=True)

    def _begin(self, after: int | None) -> bytes:
        """The record that an owner begins with. It knows nothing yet."""
        self._owner = owner_name(self._around.instance_id, self._incarnation, after)
        return encode_record(Record(self._owner, self._turn, Cursor()))

    async def _recall(self, mine_seq: int) -> Memory:
        try:
            return await recall_own(self._around.log, self.address, self._actor, mine_seq)
        except StrangeRecordError as error:
            around = self._around
            letter_id = await set_aside(around.log, self.address, error, around.tail.burial_of)
            raise error.naming(letter_id) from error

    def _refuse_to_fight(self, owner: str) -> None:
        """The instance that started last owns the shards. One that it has fenced off does not take them back."""
        theirs = instance_of(owner)
        if self._past.owned_seq and theirs not in ("", self._around.instance_id):
            raise SupersededError(
                f"{self.address} is owned by instance {theirs} since; this one ({self._around.instance_id}) "
                "stops. Run one instance on a stream"
            )

    def _resume(self) -> None:
        """Act again on what the recovered states say: calls owed, deadlines, views that may be missing."""
        memory = self._memory
        for key, state in memory.live.items():
            self._follow_up(key, state, resumed=True)
        for key, (state, traceparent) in memory.recent.items():
            self._around.views.put(key, self._actor, state, traceparent)
        memory.recent = {}

    # --- the loop ---

    async def _hear(self) -> None:
        past, memory = self._past, self._memory
        group = _Group(memory.cursor)
        while True:
            is_careful = past.is_careful(memory.cursor)
            self.mailbox.wake_seq = self._committed.seq + CURSOR_LAG_MAX
            self._is_idle = True
            try:
                items = await self._take(group, 1 if is_careful else GROUP_FACTS_MAX)
            except trio.Cancelled:
                await self._leave(group)
                raise
            self._is_idle, self._progress_s = False, trio.current_time()
            try:
                if self._hooks is not None:
                    await self._hooks.before_react(items, past)
                self._decide(group, items)
                group.items += items
                if items and group.can_wait and not group.is_empty and not is_careful:
                    group.ends_s = min(group.ends_s, trio.current_time() + PATIENCE_S)
                    continue
                await self._commit(group)
                self._act(group)
            except EncodeError as error:
                past.note_group(group.items, error)
                raise
            except RefusedError:
                # The record may be too large; a full disk is nobody's fault.
                past.be_careful(group.items)
                raise
            finally:
                fail_asks(items)  # Those that have no answer now will get none.
            group = _Group(memory.cursor)
            if memory.unsaved >= SNAPSHOT_RECORDS and not self._is_snapshotting:
                self._nursery.start_soon(self._keep_snapshot, self._take_snapshot())

    async def _take(self, group: _Group, most: int) -> list[Item]:
        """What arrives next; nothing, when the group at hand has waited long enough."""
        if self._wanted is not None:
            log, now_ms = self._around.log, self._around.clock.now_ms()
            await lend_rows(log, self.address, self._memory.archive, self._wanted, now_ms)
            self._wanted = None
        if group.is_empty:
            return await self.mailbox.take(most)
        with trio.move_on_at(group.ends_s):
            return await self.mailbox.take(most)
        return []

    # --- decide: nothing here waits, nothing leaves this process ---

    def _decide(self, group: _Group, items: list[Item]) -> None:
        now_ms = self._around.clock.now_ms()
        bytes_max = min(GROUP_BYTES_MAX, self._around.log.payload_bytes_max // 2)
        for at, item in enumerate(items):
            if group.bytes_so_far > bytes_max or len(group.letters) >= GROUP_LETTERS_MAX:
                self._put_back(items, at)
                break
            try:
                self._take_in(group, item, now_ms)
            except RowsAwayError as away:
                group.spans.pop()  # Of hearing this, which is still to come.
                self._wanted = away.segment
                self._put_back(items, at)
                break
            except Exception as error:
                self._past.note(item, error)
                for span in group.spans:
                    span.fail(error)
                raise
        newest = next((item for item in reversed(items) if isinstance(item, Delivery)), None)
        if newest is not None:
            group.cursor = newest.after
        if not len(self.mailbox) and not group.cursor.skip:
            group.cursor = max(group.cursor, Cursor(self.mailbox.read_seq))

    def _put_back(self, items: list[Item], at: int) -> None:
        self.mailbox.put_back(items[at:])
        del items[at:]

    def _take_in(self, group: _Group, item: Item, now_ms: int) -> None:
        traces = self._memory.traces
        match item:  # What comes most often first.
            case Delivery(content=Envelope() as sent):
                trace = (sent.traceparent, sent.tracestate)
                self._react(group, item, sent.fact, now_ms, trace)
                if isinstance(sent, Replayed):
                    group.again.update(group.states)
            case CallAnswered() | Due():
                self._react(group, item, item, now_ms, (traces.get(item.key, ""), ""))
                if isinstance(item, CallAnswered):
                    group.answered.append(item)
            case Ask(fact=fact):
                # A later request about an order joins that order's trace.
                traceparent = traces.get(order_of(fact), "") or item.traceparent
                self._react(group, item, fact, now_ms, (traceparent, ""))
            case Delivery(content=Letter() as letter):
                group.bury(letter)
            case Wake(key=key) | Delivery(content=Wake(key=key)):
                group.woken.append(key)

    def _react(
        self, group: _Group, item: Item, heard: Heard, now_ms: int, trace: tuple[str, str]
    ) -> None:
        """Let the actor hear one thing, and collect what follows."""
        if self._past.is_spent(item):
            self._bury(group, item, heard, trace[0])
            return
        hop = self._open_hop(item, heard, *trace)
        group.spans.append(hop)
        step = self._actor.react(self._memory, heard, now_ms)
        self._collect(group, item, step, hop, now_ms)
        group.can_wait &= step.can_wait or step is NOTHING
        if isinstance(item, Ask):
            group.answers.append((item, step.answer or Answer(Outcome.DONE)))
        elif step.answer is not None and step.answer.outcome is Outcome.REUSED:
            reason = "an order of this id exists with another body"
            group.bury(letter_about(item, heard, trace[0], reason))

    def _open_hop(self, item: Item, heard: Heard, traceparent: str, tracestate: str) -> Span:
        tracer, address = self._around.tracer, self.address
        if not traceparent:  # A stranger's order without a context: its trace begins here.
            return tracer.start_order(f"process {type(heard).__name__}", kind=SpanKind.CONSUMER)
        if not tracer.records(traceparent):
            return Span(traceparent, tracestate)
        return tracer.hop(
            traceparent,
            tracestate,
            type(heard).__name__,
            self._journal,
            f"{item.seq}.{item.index}" if isinstance(item, Delivery) else "",
            order_of(heard),
            address.actor,
            address.shard,
        )

    def _collect(self, group: _Group, item: Item, step: Step, hop: Span, now_ms: int) -> None:
        for key, state in step.states.items():
            packed = None if state is None else _pack(state)
            self._memory.put(key, state, hop.traceparent, now_ms)
            group.states[key] = state
            group.changes[key] = Change(key, packed, hop.traceparent)
            group.bytes_so_far += len(key) + len(packed or b"") + CHANGE_BYTES
        seq, index = (item.seq, item.index) if isinstance(item, Delivery) else (0, 0)
        for fact in step.facts:
            group.bytes_so_far += weigh(fact)
            sent = hop.send(type(fact).__name__, self._journal)
            group.facts.append(
                Envelope(fact, order_of(fact), seq, index, sent.traceparent, sent.tracestate)
            )

    def _bury(self, group: _Group, item: Item, heard: Heard, traceparent: str) -> None:
        """Set aside what has failed too often, in the record that moves past it."""
        attempts, reason = self._past.reasons(item)
        group.buried.append(item)
        letter = letter_about(item, heard, traceparent, reason)
        group.bury(msgspec.structs.replace(letter, attempts=attempts, retryable=True))
        if isinstance(item, Ask):
            answer = Answer(Outcome.INVALID, detail="set aside: it failed too often")
            group.answers.append((item, answer))

    # --- commit: the one wait between deciding and acting ---

    async def _commit(self, group: _Group) -> None:
        """Store the group as one record, wholly or not at all."""
        memory, around = self._memory, self._around
        if not group.is_empty or group.cursor.seq > self._committed.seq + CURSOR_LAG_MAX:
            if self._hooks is not None:
                await self._hooks.around_append(points.BEFORE_APPEND, group.facts, group.changes)
            self._turn += 1
            if self._hooks is not None:
                for letter in group.letters:
                    await self._hooks.before_letter(letter)
            if group.letters:
                burial = f"{self._owner}.{self._turn}"
                await store_letters(around.log, self.address, group.letters, burial)
            record = Record(
                self._owner,
                self._turn,
                group.cursor,
                list(group.changes.values()),
                group.facts,
                group.letters,
            )
            payload = encode_record(record)
            around.tail.say(payload, group.facts)
            memory.seq = await around.log.append(self._journal, payload, expect=memory.seq)
            if self._hooks is not None:
                await self._hooks.around_append(points.AFTER_APPEND, group.facts, group.changes)
            memory.count_record(len(record.states))
            self._committed = group.cursor
        memory.cursor = group.cursor
        for span in group.spans:
            span.end(memory.seq)

    # --- act: what the committed record says is owed ---

    def _act(self, group: _Group) -> None:
        for answered in group.answered:
            self._calls.end(answered)
        is_public = self._actor.view is not None
        for key, state in group.states.items():
            self._follow_up(key, state, resumed=key in group.again)
            if state is not None and is_public:
                trace = group.changes[key].traceparent
                self._around.views.put(key, self._actor, state, trace)
        for item in group.buried:
            pause_s = self._past.bury(item)
            if isinstance(item, CallAnswered | Due):
                self._nursery.start_soon(self._wake_later, item.key, pause_s)
        for key in group.woken:
            self._follow_up(key, self._memory.live.get(key), resumed=True)
        for ask, answer in group.answers:
            ask.resolve(answer)

    async def _wake_later(self, key: str, pause_s: float) -> None:
        """Its deadline or its call has been set aside, and no fact may ever come to move its state on."""
        await trio.sleep(pause_s)
        self.mailbox.tell(Wake(key))

    def _follow_up(self, key: str, state: State | None, *, resumed: bool = False) -> None:
        """Arm the deadline of a committed state, and issue the call that it owes."""
        live = state if key in self._memory.live else None
        self._alarms.set(key, live.due_ms if live else None)
        call = live.call if live else None
        if call is not None:
            trace = self._memory.traces.get(key, "")
            self._calls.issue(key, call, trace, again=resumed)

    # --- snapshots ---

    async def _renew(self) -> None:
        """Leave a fresh snapshot and record well before RETENTION would expire an idle shard's last ones."""
        period_s = self._around.retention_ms / 1000 / 4
        await trio.sleep(
            min(period_s, FIRST_SNAPSHOT_S)
        )  # A shard that never lives for a period renews, too.
        while True:
            for key, state in self._memory.live.items():
                self._around.views.put(key, self._actor, state, self._memory.traces.get(key, ""))
            self._memory.archive.renew(self._around.clock.now_ms(), self._around.retention_ms)
            self._committed = Cursor(-CURSOR_LAG_MAX)
            self._memory.unsaved += SNAPSHOT_RECORDS
            self.mailbox.tell(Due(""))
            await trio.sleep(period_s)

    def _take_snapshot(self) -> Taken:
        """All that this shard knows. Called between two groups only: what is decided is not yet known to be so."""
        memory, around = self._memory, self._around
        memory.unsaved = 0
        self._is_snapshotting = True
        return memory.take_snapshot(around.clock.now_ms(), around.retention_ms)

    async def _keep_snapshot(self, taken: Taken) -> None:
        """Store a snapshot, once the views that it implies are written."""
        await self._around.views.wait_written()
        if self._hooks is not None:
            await self._hooks.reach(points.BEFORE_SNAPSHOT)
        await keep(self._around.log, self.address, taken)
        if self._hooks is not None:
            await self._hooks.reach(points.AFTER_SNAPSHOT)
        self._is_snapshotting = False

    async def _leave(self, group: _Group) -> None:
        """On an orderly stop, spare the next start the reading; without a broker, it reads."""
        with suppress(LogError), trio.move_on_after(LAST_SNAPSHOT_S, shield=True):
            await self._commit(group)
            if self._memory.unsaved or self._is_snapshotting:
                await self._keep_snapshot(self._take_snapshot())


def weigh(fact: Message) -> int:
    """How many bytes a fact takes in a record, at most and near enough."""
    items = len(getattr(fact, "skus", ())) + len(getattr(fact, "lines", ()))
    return FACT_BYTES + ITEM_BYTES * items
