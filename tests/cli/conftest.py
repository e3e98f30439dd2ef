"""The command line, called in this process and in one of its own."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny as tiny_module
from tiny import tiny

from geodapt.cli import main

__all__ = ["tiny"]

SOURCE = Path(sys.modules["geodapt"].__file__).parents[1]


@dataclass
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def geodapt(monkeypatch, capfd):
    """``geodapt(*arguments)``: the command line in this process."""

    def call(*arguments: str) -> Done:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["geodapt", *map(str, arguments)])
            patch.setattr(os, "environ", os.environ.copy())  # what the command sets stays in it
            with pytest.raises(SystemExit) as stopped:
                main()
        return Done(stopped.value.code or 0, *capfd.readouterr())

    return call


@pytest.fixture
def start():
    """``start(*arguments)``: the command line, with the tiny system, in a process of its own."""
    processes = []

    def call(*arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, *launcher, tiny_module.__file__, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield call
    for process in processes:
        process.kill()
        process.communicate()
