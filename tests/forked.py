"""The command line in processes that are forked from one that has imported its libraries.

Signals, locks, statuses and output are those of ``python -m geodapt``, without the five seconds of
imports that each of those begins with. A few tests start that command itself (:mod:`commands`).
"""

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest
import torch

from geodapt.cli import main

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["tests.forked_imports"])
WRITTEN = ("out", "err")
"""Files with what the processes print, in a folder of their own."""


class Forked:
    """One or several processes, asked as a ``subprocess.Popen`` is."""

    def __init__(self, folder: Path, run: Callable[[], None], arguments: list[str], ranks: int):
        self._written = tempfile.TemporaryDirectory(prefix="forked")
        for name in WRITTEN:
            Path(self._written.name, name).touch()
        given = (folder, self._written.name, torch.get_num_threads(), run, arguments)
        self._processes = [
            _FORKING.Process(target=_forked, args=({**os.environ, **rank}, *given))
            for rank in _ranks(ranks)
        ]
        with pytest.MonkeyPatch.context() as patch:  # for what the server imports
            patch.setenv("PYTHONPATH", os.pathsep.join(map(os.path.abspath, sys.path)))
            # looked for in CUDA itself, a GPU could not be used after a fork
            patch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
            forkserver.ensure_running()
        for process in self._processes:
            process.start()

    @property
    def returncode(self) -> int | None:
        """The first status that is not 0; none as long as a process runs."""
        codes = [process.exitcode for process in self._processes]
        return None if None in codes else next(filter(None, codes), 0)

    @property
    def pid(self) -> int | None:
        """Of the first one."""
        return self._processes[0].pid

    def said(self) -> str:
        """What they have printed so far."""
        return Path(self._written.name, "out").read_text()

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):  # it may end between the two
                if process.is_alive():
                    os.kill(process.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        for process in self._processes:
            process.join(timeout)
        code = self.returncode
        if code is None:
            self.kill()
            pytest.fail(f"runs after {timeout} seconds")
        return code

    def line(self, name: str = "out", timeout: float = 120) -> str:
        """The first line that a process printed, once it is whole."""
        end = time.monotonic() + timeout
        while "\n" not in (said := Path(self._written.name, name).read_text()):
            assert self.poll() is None, self.communicate()
            assert time.monotonic() < end, f"says nothing for {timeout} seconds"
            time.sleep(0.01)
        return said.partition("\n")[0]

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        out, err = (Path(self._written.name, name).read_text() for name in WRITTEN)
        return out, err


def fork(
    folder: Path | str, *arguments: object, run: Callable[[], None] = main, ranks: int = 1
) -> Forked:
    """``geodapt ARGUMENTS`` in a folder, in as many processes as torchrun would start."""
    return Forked(Path(folder).absolute(), run, [str(each) for each in arguments], ranks)


def _ranks(count: int) -> list[dict[str, str]]:
    """The variables by which processes of torch find each other."""
    if count == 1:
        return [{}]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared["ACCELERATE_USE_CPU"] = "true"
    return [
        {"RANK": str(n), "LOCAL_RANK": str(n), "LOCAL_WORLD_SIZE": str(count), **shared}
        for n in range(count)
    ]


def _forked(
    environment: dict[str, str],
    folder: Path,
    written: str,
    threads: int,
    run: Callable[[], None],
    arguments: list[str],
) -> None:
    for number, name in enumerate(WRITTEN, 1):
        path = Path(written, name)
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["geodapt", *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(threads)
    np.random.seed()
    run()
