"""Style, types and floors, so that the tests cover what `make lint` covers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = [name for name in ("src", "tests", "benchmarks", "constraints") if (ROOT / name).is_dir()]


@pytest.mark.house
@pytest.mark.parametrize(
    "command",
    [
        ["-m", "ruff", "check", *CODE],
        ["-m", "ruff", "format", "--check", *CODE],
        ["-m", "mypy"],
        ["-c", "from importlinter.cli import lint_imports_command as main; main()"],
    ],
    ids=["lint", "format", "types", "floors"],
)
def test_house_is_in_order(command):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
