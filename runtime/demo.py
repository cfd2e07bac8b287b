"""`orders demo`: places real orders with a whole instance on a fresh store, breaks it half-way, and checks everything.

- `demo_plan`     what is ordered
- `demo_load`     the customers: a process that talks HTTP only
- `demo_run`      the instance, and who starts and breaks what
- `demo_faults`   how it is broken
- `demo_checks`   what must be true in the end
- `demo_verdict`  the checks and the measurements as one value
- `demo_screen`   progress, and the table
"""

import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from runtime.demo_run import Ending, Options, run_demo
from runtime.demo_screen import Screen, result

EXIT_FAILED = 1


def demo(
    *, orders_max: int, clients: int, keep: Path | None, as_json: bool, quiet: bool, verbose: bool
) -> int:
    """Run the demo as this process; returns its exit code. `keep` is a new or empty directory for the store."""
    with Screen(quiet=quiet) as screen:
        store = _make_store(keep)
        ending = Ending(EXIT_FAILED, "")
        try:
            screen.say("starting an instance: nats-server, actors, HTTP")
            ending = run_demo(Options(orders_max, clients, store, verbose), screen)
        finally:
            is_worth_keeping = keep is not None or (ending.verdict and not ending.verdict.is_good)
            if not is_worth_keeping:
                shutil.rmtree(store)
    verdict = ending.verdict
    if verdict is None:
        print(f"the demo ended before there was a result: {ending.reason}", file=sys.stderr)
        return ending.code or EXIT_FAILED
    if as_json:
        print(json.dumps({"good": verdict.is_good, **asdict(verdict)}))
    else:
        Console().print(result(verdict, store if is_worth_keeping else None))
    return 0 if verdict.is_good else EXIT_FAILED


def _make_store(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="orders-demo-"))
    keep.mkdir(parents=True, exist_ok=True)
    return keep.absolute()
