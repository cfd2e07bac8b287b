"""Supervision trees for trio: tasks that fail are started again, in order, within limits, or the failure moves up.

Five minutes. A *child* is an async function that says when it is ready and then runs:

>>> import trio
>>> from supervisors import ChildSpec, Restart, Strategy, SupervisorSpec, child_supervisor, supervise
>>> async def link(*, task_status):
...     task_status.started()
...     await trio.sleep_forever()
>>> async def reader(patience_s, *, task_status):
...     task_status.started()
...     await trio.sleep(patience_s)
...     raise ConnectionError("lost")

A *supervisor* starts its children from left to right, each when the one before is ready, restarts those that
fail, and stops them from right to left. Its strategy says who is restarted together: the failed child alone
(`ONE_FOR_ONE`), everybody (`ONE_FOR_ALL`), or the failed child and those after it (`REST_FOR_ONE`). A
supervisor is a child too, so trees grow:

>>> feed = SupervisorSpec(
...     strategy=Strategy.REST_FOR_ONE,
...     intensity=3,
...     period_s=60,
...     children=(ChildSpec("link", link), ChildSpec("reader", reader, args=(1.0,))),
... )
>>> root = SupervisorSpec(children=(ChildSpec("audit", link), child_supervisor("feed", feed)))

A restart waits, longer each time (`Backoff`). More than `intensity` restarts in `period_s`, over all children
together, and the supervisor gives up: it stops its children and raises `MaxRestartsExceeded`, which its own
supervisor sees as the crash of a child. So a failure that a restart does not cure climbs until it ends the
process: `sys.exit(run(root))` is a whole main, with signals, exit codes and a watchdog.

>>> from supervisors import RestartScheduled
>>> async def main():
...     def on_report(report):
...         if isinstance(report, RestartScheduled):
...             print(report.path, "restarts")
...     async with trio.open_nursery() as nursery:
...         start = lambda task_status: supervise(root, on_report=on_report, task_status=task_status)
...         supervisor = await nursery.start(start)
...         await trio.sleep(1.05)
...         print(supervisor.snapshot().find("feed/reader").state)
...         await supervisor.stop()
>>> from trio.testing import MockClock
>>> trio.run(main, clock=MockClock(autojump_threshold=0))
feed/reader restarts
State.RESTARTING

**What it is like.** From OTP come specs, strategies, restart types, intensity, significant children, and the
order of everything. Deliberately different: a start has a time limit; giving up is an abnormal end, so no parent
lets a subtree die quietly and the process does not end with success; restarts wait, as in Akka, but inside the
tree, where the supervisor goes on answering; a child stopped by hand stays stopped when its siblings restart; a
failure during the first start is handled then, not after it; and since trio cannot kill a task, a child that
outlives its cancellation ends the process. From Akka comes the back-off and when it forgets; Akka's parents know
no order among siblings. triotp, OTP on trio too, restarts each task by itself and counts its restarts alone; here
siblings may depend on each other, and the count is the supervisor's. From suture comes that events are values for
one hook; suture stops its services all at once, and its back-off pauses the whole supervisor instead of one child.

**The map.** Values: `spec` (what you write), `reports` (what you hear), `tree` (what you see), `errors`. Pure
decisions: `exits` (is this end normal, abnormal, fatal?), `strategy` (who goes with whom), `intensity` (too
often?), `backoff` (how long?). The mind: `child` (one record), `roster` (marks and next steps), `machine` (what
follows from what), `admin` (what one may ask). The body: `engine` (one task, one inbox, a guard around each
child), `supervisor` (the handle), `watchdog` (a thread), `run` (the process).
"""

from supervisors.backoff import Backoff
from supervisors.engine import ChildStatus
from supervisors.errors import (
    AdminFault,
    AlreadyPresent,
    AlreadyStarted,
    ConfigError,
    Hung,
    IsDynamic,
    MaxRestartsExceeded,
    MemoryExhausted,
    NotDynamic,
    NotFound,
    NotStarted,
    Restarting,
    Running,
    Shutdown,
    StartFailed,
    StartTimeout,
    StrayCancellation,
    SupervisionFault,
    SupervisorStopped,
    UnexpectedReturn,
    Unkillable,
)
from supervisors.reports import (
    ChildCrashed,
    ChildEnded,
    ChildIgnored,
    ChildStarted,
    ChildStartFailed,
    ChildStopped,
    ChildUnkillable,
    ErrorReport,
    GaveUp,
    OnReport,
    ProcessEnding,
    Report,
    RestartFailed,
    RestartScheduled,
    ShutdownError,
    SupervisorEnded,
)
from supervisors.run import run
from supervisors.spec import (
    BRUTAL,
    IGNORE,
    AutoShutdown,
    ChildSpec,
    Ignore,
    Kind,
    Restart,
    Strategy,
    SupervisorSpec,
)
from supervisors.supervisor import Supervisor, child_supervisor, supervise
from supervisors.tree import ChildInfo, Counts, Node, State
from supervisors.watchdog import Watchdog

__all__ = [
    "BRUTAL",
    "IGNORE",
    "AdminFault",
    "AlreadyPresent",
    "AlreadyStarted",
    "AutoShutdown",
    "Backoff",
    "ChildCrashed",
    "ChildEnded",
    "ChildIgnored",
    "ChildInfo",
    "ChildSpec",
    "ChildStartFailed",
    "ChildStarted",
    "ChildStatus",
    "ChildStopped",
    "ChildUnkillable",
    "ConfigError",
    "Counts",
    "ErrorReport",
    "GaveUp",
    "Hung",
    "Ignore",
    "IsDynamic",
    "Kind",
    "MaxRestartsExceeded",
    "MemoryExhausted",
    "Node",
    "NotDynamic",
    "NotFound",
    "NotStarted",
    "OnReport",
    "ProcessEnding",
    "Report",
    "Restart",
    "RestartFailed",
    "RestartScheduled",
    "Restarting",
    "Running",
    "Shutdown",
    "ShutdownError",
    "StartFailed",
    "StartTimeout",
    "State",
    "Strategy",
    "StrayCancellation",
    "SupervisionFault",
    "Supervisor",
    "SupervisorEnded",
    "SupervisorSpec",
    "SupervisorStopped",
    "UnexpectedReturn",
    "Unkillable",
    "Watchdog",
    "child_supervisor",
    "run",
    "supervise",
]
