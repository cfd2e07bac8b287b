"""What the core stands on: one connection, over which JetStream serves the streams that we know.

The connection alone is not enough. A cluster that has lost its majority keeps its connections and stores nothing, and
a stream can be deleted under our feet. So whoever stands here and is refused asks for a look, and there is one every
few seconds anyway. If JetStream does not answer, all of the core falls at once and waits, which costs one restart
and not one of each shard every second; if a stream is not what it was, the process ends.

JetStream may also answer a look and refuse what comes next: a cluster describes its streams while nobody there can make
a consumer. So who is refused before it has started tries again, for as long as the ground holds. That is no failure of
its own: as one, the very first would end the process.
"""

import math
from collections.abc import Awaitable, Callable, Sequence

import structlog
import trio

from runtime.bridge import Bridge
from runtime.jetstream import JetStreamLog, Layout
from runtime.log import BrokerLostError, FencedError, RefusedError
from supervisors import StartTimeout
from supervisors.errors import brief

LOOK_S = 2.0  # Three small requests each; a lost stream is noticed well within ten seconds.
VERDICT_S = 7.0  # More than two looks that are not answered: then this has fallen.
WAIT_MIN_S = 0.2
WAIT_MAX_S = 2.0  # Also what is added to the time that a cluster takes to elect a leader.
START_S = 60.0  # Of one try. Recovery reads what lies between a snapshot and now, at some 50 MB/s.

_logger = structlog.get_logger("runtime.footing")


class Footing:
    """One for the process. `hold` is the child that lives as long as a connection is of use."""

    def __init__(
        self, bridge: Bridge, log: JetStreamLog, layout: Layout, *, accept_loss: bool = False
    ) -> None:
        self._bridge, self._log = bridge, log
        self._layout, self._accept_loss = layout, accept_loss
        self._doubted = trio.Event()
        self._looked = trio.Event()
        self._is_waiting = False

    @property
    def reasons(self) -> Sequence[str]:
        """Why nothing can stand here now, in words that anyone may read."""
        return ("JetStream does not serve the streams",) if self._is_waiting else ()

    async def hold(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Wait for JetStream for as long as it takes; then last as long as it does.

        Raises:
            BrokerLostError: the connection is gone, or JetStream does not answer on it any more.
            BrokerConfigError: the streams are not as they should be, or not those that we knew.
        """
        await self._wait_served()
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            await self._bridge.wait_disconnected()
            nursery.cancel_scope.cancel()
        raise BrokerLostError("the connection to the broker is gone")

    async def run_on(
        self,
        run: Callable[..., Awaitable[None]],
        *args: object,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run what stands here; if the broker refuses it before it has started, run it again, until it has.

        When it loses the broker, see whether this falls: then one loss is one restart. So, too, when it is fenced off
        or refused: in a log that was made anew it would take over an empty journal, and begin from nothing.

        Raises:
            StartTimeout: one try took too long, and not for want of an answer.
            Exception: whatever `run` raises once it has started; before, whatever is not the broker's doing.
        """
        wait_s, trouble = WAIT_MIN_S, ""
        while True:
            start = _Start(task_status)
            try:
                return await start.run(run, *args)
            except* (BrokerLostError, FencedError, RefusedError) as errors:
                await self._await_verdict()
                if start.is_made:
                    raise
                if brief(errors) != trouble:
                    trouble = brief(errors)
                    who = trio.lowlevel.current_task().name
                    _logger.warning("start_refused", child=who, trouble=trouble)
            await trio.sleep(wait_s)
            wait_s = min(WAIT_MAX_S, wait_s * 2)

    async def _await_verdict(self) -> None:
        self._doubted.set()
        with trio.move_on_after(VERDICT_S):
            await self._looked.wait()

    async def _wait_served(self) -> None:
        wait_s, trouble = WAIT_MIN_S, ""
        try:
            while True:
                await self._bridge.wait_connected()
                try:
                    return await self._log.prepare(self._layout, accept_loss=self._accept_loss)
                except (BrokerLostError, RefusedError) as error:  # Too few servers are up, perhaps.
                    if str(error) != trouble:
                        trouble = str(error)
                        _logger.warning("jetstream_awaited", trouble=trouble)
                    self._is_waiting = True
                    # The one that we are connected to may be alone on its side of a partition.
                    self._bridge.leave_server(trouble)
                await trio.sleep(wait_s)
                wait_s = min(WAIT_MAX_S, wait_s * 2)
        finally:
            self._is_waiting = False

    async def _watch(self) -> None:
        while True:
            with trio.move_on_after(LOOK_S):
                await self._doubted.wait()
            self._doubted = trio.Event()
            try:
                await self._look_twice()
            except BrokerLostError as error:
                self._bridge.leave_server(str(error))
                raise
            looked, self._looked = self._looked, trio.Event()
            looked.set()

    async def _look_twice(self) -> None:
        """A slow disk may hold up one answer."""
        try:
            await self._log.verify()
        except BrokerLostError:
            await self._log.verify()


class _Start(trio.TaskStatus[None]):
    """The `task_status` of one try to start something, which has `START_S` for it."""

    def __init__(self, task_status: trio.TaskStatus[None]) -> None:
        self.is_made = False
        self._task_status = task_status
        self._patience = trio.CancelScope()

    def started(self, value: None = None) -> None:
        self.is_made = True
        self._patience.deadline = math.inf
        self._task_status.started(value)

    async def run(self, run: Callable[..., Awaitable[None]], *args: object) -> None:
        with self._patience:
            self._patience.deadline = trio.current_time() + START_S
            return await run(*args, task_status=self)
        raise StartTimeout(f"not ready within {START_S:g} s")
