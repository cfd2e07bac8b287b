"""Put first on a process's PYTHONPATH, this plants the bug that PLANTED names before anything else runs."""

import importlib.util
import os
import sys
from pathlib import Path

PLANTED = Path(__file__).parents[1] / "planted.py"

if name := os.environ.get("PLANTED"):
    sys.path.insert(0, str(PLANTED.parents[2]))
    spec = importlib.util.spec_from_file_location("planted", PLANTED)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.PLANTED[name](setattr)
