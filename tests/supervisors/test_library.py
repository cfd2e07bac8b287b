"""The library as a whole: its example runs, it stands on trio alone, and the linter sees what it relies on."""

import ast
import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import supervisors

ROOT = Path(supervisors.__file__).parent.parent


def test_the_example_in_the_docstring_does_what_it_says():
    outcome = doctest.testmod(supervisors)
    assert outcome.attempted > 5
    assert outcome.failed == 0


def test_nothing_but_trio_and_the_standard_library_is_imported():
    allowed = {"trio", "supervisors", *sys.stdlib_module_names}
    for path in (ROOT / "supervisors").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names.append(node.module)
            assert {name.split(".")[0] for name in names} <= allowed, path.name


@pytest.mark.parametrize("caught", ["BaseException", "Exception"])
def test_s86_the_linter_reports_a_child_that_catches_everything_and_goes_on(caught):
    program = (
        f"async def child():\n    try:\n        await work()\n    except {caught}:\n        pass\n"
    )
    linted = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--stdin-filename=child.py", "-"],
        input=program,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert "BLE001" in linted.stdout
