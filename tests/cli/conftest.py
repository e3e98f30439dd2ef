"""The command line, with the tiny system, in a process of its own."""

import subprocess

import pytest
import tiny as tiny_module
from tiny import tiny

from tests import commands

__all__ = ["tiny"]


@pytest.fixture
def start():
    """``start(*arguments)``: the command line, with the tiny system, in a process of its own."""
    processes = []

    def call(*arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen:
        command = (*launcher, tiny_module.__file__)
        processes.append(commands.start(".", *arguments, launcher=command))
        return processes[-1]

    yield call
    for process in processes:
        process.kill()
        process.communicate()
