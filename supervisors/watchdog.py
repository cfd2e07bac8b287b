"""A thread that notices when the trio loop stands still, which no trio task can.

It asks the loop for a sign of life, shows all stacks when none comes, and ends the process when none comes
for longer still. Code that holds the GIL stops this thread too; then the kernel counts, and SIGPROF shows the
stacks and ends the process. Neither takes a process that was paused for one that hangs: the thread counts its
own looks, the kernel the CPU time used.
"""

import faulthandler
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

EXIT_HUNG = 70  # EX_SOFTWARE
TIMER_MAX_S = 1e6  # For a watchdog whose limits are infinite.
STDERR = 2  # The descriptor: what sys.stderr is bound to may be gone.


@dataclass(slots=True, eq=False)
class Watchdog:
    dump_after_s: float = 5.0
    exit_after_s: float = 10.0
    check_every_s: float = 0.5
    exit: Callable[[int], object] = (
        os._exit
    )  # Not sys.exit: nothing in this process can be waited for.
    silent_s: float = 0.0  # For how long the loop has given no sign of life.
    _done: threading.Event = field(default_factory=threading.Event)
    _exit_in_s: float | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the trio run that this is called in."""
        token = trio.lowlevel.current_trio_token()
        # Chained to the default action, which is the end.
        faulthandler.register(signal.SIGPROF, file=STDERR, all_threads=True, chain=True)
        thread = threading.Thread(target=self._watch, args=[token], name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()
            faulthandler.unregister(signal.SIGPROF)

    def end_process(self, after_s: float) -> None:
        """End the process before long, whatever the loop does in the meantime."""
        self._exit_in_s = after_s

    def _watch(self, token: trio.lowlevel.TrioToken) -> None:
        is_dumped = False
        try:
            while not self._done.wait(self.check_every_s):
                self.silent_s += self.check_every_s
                token.run_sync_soon(self._hear, idempotent=True)
                signal.setitimer(signal.ITIMER_PROF, min(2 * self.exit_after_s, TIMER_MAX_S))
                if self.silent_s < self.dump_after_s:
                    is_dumped = False
                elif not is_dumped:
                    is_dumped = True
                    _dump(f"the trio loop has stood still for {self.silent_s:g} s")
                self._exit_if_due()
        except trio.RunFinishedError:
            pass  # There is no loop left to watch.
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    def _exit_if_due(self) -> None:
        if self._exit_in_s is not None:
            self._exit_in_s -= self.check_every_s
        is_ordered = self._exit_in_s is not None and self._exit_in_s <= 0
        if is_ordered or self.silent_s >= self.exit_after_s:
            _dump("ending the process with 70")
            self.exit(EXIT_HUNG)

    def _hear(self) -> None:
        self.silent_s = 0.0


def _dump(why: str) -> None:
    os.write(STDERR, f"watchdog: {why}; all stacks follow\n".encode())
    faulthandler.dump_traceback(STDERR, all_threads=True)
