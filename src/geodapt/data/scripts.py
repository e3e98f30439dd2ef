"""Scripts that read other people's packages, side by side, each in a fresh interpreter."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

from geodapt.errors import InputError
from geodapt.progress import bar

Advance = Callable[[], None]


def side_by_side(
    label: str, sizes: Mapping[str, int], work: Callable[[str, Advance], None]
) -> None:
    """``work(name, advance)`` for every name, the largest first, behind one progress bar."""
    with (
        bar(label, total=sum(sizes.values())) as progress,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        largest_first = sorted(sizes, key=lambda name: -sizes[name])
        for job in [pool.submit(work, name, progress.advance) for name in largest_first]:
            job.result()


def run_script(script: ModuleType, *arguments: object, failed: str, advance: Advance) -> Any:
    """Run a module's file; what it wrote as JSON into the file named by its last argument.

    A line ``done/total`` that it prints calls ``advance``. Raises :class:`InputError` with what
    ``failed`` says, the exit status and the last other line.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, last = Path(folder) / "found.json", ""
        # -P: the script's own folder must not shadow modules that it imports.
        command = [sys.executable, "-P", "-W", "ignore", str(script.__file__)]
        with subprocess.Popen(
            [*command, *map(str, arguments), str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if re.fullmatch(r"\d+/\d+\n", line):
                    advance()
                else:
                    last = line.strip() or last
        if process.returncode != 0:
            raise InputError(f"{failed} (exit status {process.returncode}): {last}")
        return json.loads(out.read_text())
