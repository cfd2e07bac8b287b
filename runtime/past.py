"""What one incarnation of a shard leaves to the next: whether we owned it, what it died of, what it set aside.

In memory only: after a new start of the process everything is tried afresh.
"""

from collections import OrderedDict

from messages.record import Cursor
from runtime.mailbox import Ask, Delivery, Item

ATTEMPTS_MAX = 3  # Each is a restart: three poisonous facts in a minute stay below the default intensity of 10.
REMEMBERED_MAX = 1_000  # Suspects at a time; asks that were never repeated leave theirs behind.
PAUSE_MIN_S = 60.0  # A key whose deadline or call was set aside is looked at again after so long,
PAUSE_MAX_S = (
    3600.0  # twice that the next time, and so on up to this: each look may be three restarts.
)

Identity = tuple[str | int, ...]


class Past:
    """Failures by fact. After a failure the shard takes facts one by one until it has passed the bad one."""

    def __init__(self) -> None:
        self.owned_seq = 0
        """Of the newest record that we know to be ours; 0 until we own the shard."""
        self._failures: OrderedDict[Identity, list[str]] = OrderedDict()
        self._burials: OrderedDict[Identity, int] = OrderedDict()
        self._careful_until = Cursor()

    def note(self, item: Item, error: Exception) -> None:
        """Remember that the shard died of this."""
        failures = self._failures.setdefault(_identity(item), [])
        failures.append(f"{type(error).__name__}: {_text(error)}")
        if len(self._failures) > REMEMBERED_MAX:
            self._failures.popitem(last=False)
        if isinstance(item, Delivery):
            self._careful_until = max(self._careful_until, Cursor(item.seq))

    def note_group(self, items: list[Item], error: Exception) -> None:
        """Remember that the shard died of one of these, and find out which."""
        if len(items) == 1:
            self.note(items[0], error)
        self.be_careful(items)

    def be_careful(self, items: list[Item]) -> None:
        """Take these one by one next time; it may not be their fault."""
        newest = max((item.seq for item in items if isinstance(item, Delivery)), default=0)
        self._careful_until = max(self._careful_until, Cursor(newest))

    def is_careful(self, cursor: Cursor) -> bool:
        """True while a suspect is still ahead."""
        return cursor < self._careful_until

    def is_spent(self, item: Item) -> bool:
        """True when this has had its attempts and must be set aside."""
        if not self._failures:
            return False
        return len(self._failures.get(_identity(item), ())) >= ATTEMPTS_MAX

    def reasons(self, item: Item) -> tuple[int, str]:
        """How often this failed, and each time's reason."""
        failures = self._failures.get(_identity(item), [])
        return len(failures), "; ".join(failures)

    def bury(self, item: Item) -> float:
        """Forget what has been set aside, and durably so; return after how long its key is worth another look."""
        identity = _identity(item)
        self._failures.pop(identity, None)
        times = self._burials[identity] = self._burials.pop(identity, 0) + 1
        if len(self._burials) > REMEMBERED_MAX:
            self._burials.popitem(last=False)
        return min(PAUSE_MAX_S, PAUSE_MIN_S * (1 << min(times - 1, 10)))


def _identity(item: Item) -> Identity:
    match item:
        case Delivery():
            return (item.seq, item.index)
        case Ask():
            return ("ask", repr(item.fact))
        case _:
            return (type(item).__name__, item.key)


def _text(error: Exception) -> str:
    """What an exception says of itself; some cannot even do that."""
    try:
        return str(error)[:500]
    except Exception as worse:  # noqa: BLE001  # A broken __str__ must not hide the first failure.
        return f"(no text: {type(worse).__name__})"
