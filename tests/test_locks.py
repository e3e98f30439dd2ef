"""One process at a time in a folder."""

import os
import subprocess
import sys

import pytest

from geodapt.errors import InputError
from geodapt.locks import LOCK, only_user

HOLD = """
import sys, time
from pathlib import Path
from geodapt.locks import only_user
with only_user(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def refused(folder, holder):
    wanted = rf"in use by process {holder} on "
    with pytest.raises(InputError, match=wanted), only_user(folder):
        pass


def test_a_second_user_is_told_who_the_first_is(tmp_path):
    with only_user(tmp_path):
        for _ in range(2):  # the refused one has let go of nothing
            refused(tmp_path, os.getpid())
    with only_user(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


@pytest.mark.slow
def test_a_lock_goes_with_its_process(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    refused(tmp_path, holder.pid)
    holder.kill()
    holder.communicate()
    with only_user(tmp_path):
        pass
