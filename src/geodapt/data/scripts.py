"""Scripts that read other people's packages, side by side, each in a fresh interpreter."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import ModuleType
from typing import Any

from geodapt.errors import InputError
from geodapt.progress import bar

Advance = Callable[[], None]


_OBEDIENT = """
import os, runpy, sys, threading

def end_with_parent():
    while os.read(0, 1):  # nothing is ever written: it ends when the parent does
        pass
    os._exit(1)

threading.Thread(target=end_with_parent, daemon=True).start()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script that ends with the process that started it, however that process ends."""

PACKAGES_FOLDER = Path(__file__).parents[2]
"""Where geodapt itself is found, by scripts that import more of it."""

_running: set[subprocess.Popen] = set()


def side_by_side(
    label: str, sizes: Mapping[str, int], work: Callable[[str, Advance], None]
) -> None:
    """``work(name, advance)`` for every name, the largest first, with one progress bar.

    Where one fails, or the process is asked to stop, the others are ended too.
    """
    with (
        bar(label, total=sum(sizes.values())) as progress,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        largest_first = sorted(sizes, key=lambda name: -sizes[name])
        jobs = [pool.submit(work, name, progress.advance) for name in largest_first]
        try:
            for job in as_completed(jobs):
                job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(_running):
                process.kill()
            raise


def run_script(
    script: ModuleType, *arguments: object, folder: Path, failed: str, advance: Advance
) -> Any:
    """Run a module's file; what it wrote as JSON into the file named by its last argument.

    That file lies in ``folder`` for a while. A line ``done/total`` that the script prints calls
    ``advance``. Raises :class:`InputError` with what ``failed`` says, the exit status and the last
    other line.
    """
    out, last = folder / "found.json", ""
    # -P: the script's own folder must not shadow modules that it imports.
    paths = [str(PACKAGES_FOLDER), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-P", "-W", "ignore", "-c", _OBEDIENT, str(script.__file__)]
    with subprocess.Popen(
        [*command, *map(str, arguments), str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        _running.add(process)
        try:
            for line in process.stdout:
                if re.fullmatch(r"\d+/\d+\n", line):
                    advance()
                else:
                    last = line.strip() or last
        except BaseException:
            process.kill()
            raise
        finally:
            _running.discard(process)
    if process.returncode != 0:
        raise InputError(f"{failed} (exit status {process.returncode}): {last}")
    found = json.loads(out.read_text(encoding="utf-8"))
    out.unlink()
    return found
