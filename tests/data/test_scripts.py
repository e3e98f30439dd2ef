"""Scripts that read packages end with the process that started them, and leave nothing."""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from geodapt.data.scripts import run_script, side_by_side
from geodapt.errors import InputError
from geodapt.files import build_once

SLOW = """
import json, os, sys, time
from pathlib import Path
Path(sys.argv[1]).write_text(str(os.getpid()))
print("1/2", flush=True)
time.sleep(float(sys.argv[2]))  # without a word, as a package that takes its time to import
Path(sys.argv[1] + "-slept").write_text("")
Path(sys.argv[3]).write_text(json.dumps("done"))
"""
PARENT = """
import sys
from pathlib import Path
from types import SimpleNamespace
slow = SimpleNamespace(__file__=sys.argv[1] + "/slow.py")
from geodapt.data.scripts import run_script, side_by_side
folder = Path(sys.argv[1])
side_by_side("reading", {"a": 1}, lambda name, advance: run_script(
    slow, folder / "pid", 600, folder=folder, failed="x", advance=advance))
"""


@pytest.fixture
def slow(tmp_path):
    """A script that says its process and then works for as long as it is told."""
    (tmp_path / "slow.py").write_text(SLOW)
    spec = importlib.util.spec_from_file_location("slow", tmp_path / "slow.py")
    assert spec is not None
    return importlib.util.module_from_spec(spec)


def process_of(folder: Path) -> int:
    for _ in range(3000):
        if (folder / "pid").exists() and (folder / "pid").read_text():
            return int((folder / "pid").read_text())
        time.sleep(0.02)
    raise AssertionError("the script did not begin")


def gone(pid: int) -> bool:
    for _ in range(3000):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


def run(slow, folder, seconds, advance=lambda: None):
    return run_script(
        slow, folder / "pid", seconds, folder=folder, failed="it failed", advance=advance
    )


def test_a_script_gives_what_it_wrote_and_says_how_far_it_is(slow, tmp_path):
    steps = []
    assert run(slow, tmp_path, 0, lambda: steps.append(1)) == "done"
    assert steps == [1]
    assert not (tmp_path / "found.json").exists()
    with pytest.raises(InputError, match=r"it failed .exit status 1.: ValueError"):
        run(slow, tmp_path, "x")


def test_a_stop_ends_the_scripts_at_once(slow, tmp_path):
    def interrupt():
        process_of(tmp_path)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        side_by_side("reading", {"a": 1}, lambda name, advance: run(slow, tmp_path, 600, advance))
    thread.join()
    assert gone(process_of(tmp_path))
    assert not (tmp_path / "pid-slept").exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks a process up in /proc")
def test_a_kill_ends_the_scripts_too(slow, tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    pid = process_of(tmp_path)
    parent.kill()
    parent.wait()
    assert gone(pid)


def test_what_a_kill_left_in_the_cache_is_removed_when_it_is_made_again(tmp_path):
    left, others = tmp_path / ".a[1].0123abcd.unfinished", tmp_path / ".b.0123abcd.unfinished"
    for folder in (left, others):
        (folder / "inner").mkdir(parents=True)
    build_once(tmp_path / "a[1]", lambda folder: (folder / "file").touch())
    assert not left.exists()
    assert others.exists()  # perhaps somebody is writing it
