"""Scripts that read other people's packages, side by side, each in a fresh interpreter."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

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


def run_script(script: ModuleType, *arguments: object, advance: Advance) -> tuple[int, str]:
    """Run a module's file; its exit status, and the last line that it printed.

    A line ``done/total`` is no message: it calls ``advance``.
    """
    # -P: the script's own folder must not shadow modules that it imports.
    command = [sys.executable, "-P", "-W", "ignore", str(script.__file__), *map(str, arguments)]
    last = ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if re.fullmatch(r"\d+/\d+\n", line):
                advance()
            else:
                last = line.strip() or last
    return process.returncode, last
