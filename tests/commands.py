"""The command line, called in this process and in one of its own."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers.utils.logging import disable_progress_bar

from geodapt.cli import main

SOURCE = Path(sys.modules["geodapt"].__file__).parents[1]


@dataclass
class Done:
    code: int
    out: str
    err: str


def call(folder: Path | str, *arguments: object) -> Done:
    """``geodapt ARGUMENTS`` in this process, in a folder."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["geodapt", *map(str, arguments)])
        patch.setattr(os, "environ", os.environ.copy())  # what the command sets stays in it
        disable_progress_bar()  # which that would do before transformers is imported
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as stopped:
            main()
    return Done(stopped.value.code or 0, out.getvalue(), err.getvalue())


def start(
    folder: Path | str, *arguments: object, launcher: tuple[str, ...] = ("-m", "geodapt")
) -> subprocess.Popen:
    """``geodapt ARGUMENTS`` in a process of its own, in a folder."""
    return subprocess.Popen(
        [sys.executable, *launcher, *map(str, arguments)],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(SOURCE),
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
