"""Kernels for the CPU, compiled once by the machine's own C++ compiler.

They are an accelerator, not a requirement: all that they compute, PyTorch operators compute too,
several times slower. So anything unusual means no kernels, silently: another system than Linux, no
compiler, ``GEODAPT_NATIVE=0``, a compiler that fails. Nothing is downloaded; the sources are the
folders ``kernels`` beside the modules that use them.

The first call that can use them compiles them, some seconds, into the cache folder under a name
made of the source, the compiler and the processor. A library there is loaded only if no other
user could have put or changed it; where the folder cannot be written, the library is compiled for
this process alone. Threads are those of PyTorch: the same OpenMP runtime, ``get_num_threads()``.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path

from geodapt.files import cache_folder
from geodapt.progress import bar

OPTIONS = [
    *("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math"),
    *("-fPIC", "-shared"),
]
# The best that the compiler and the libraries take: threads and vector exp and log, or less.
VARIANTS = (
    ["-fopenmp", "-DVECTOR_MATH", "-lmvec", "-lm"],
    ["-fopenmp", "-lm"],
    ["-fopenmp-simd", "-lm"],
)
_one_at_a_time = threading.Lock()


def library(source: Path) -> ctypes.CDLL | None:
    """The loaded kernels of a folder's ``kernels.cpp``, or None where they cannot be had."""
    with _one_at_a_time:  # threads that need the same kernels wait for one to compile them
        return _library(source)


@cache
def _library(source: Path) -> ctypes.CDLL | None:
    if sys.platform != "linux" or os.environ.get("GEODAPT_NATIVE") == "0":
        return None
    compiler = shutil.which(os.environ.get("CXX") or "c++")
    if compiler is None:
        return None
    key = hashlib.sha256(f"{compiler}|{_processor()}".encode())
    for file in sorted(source.parent.glob("*.[ch]pp")):
        key.update(file.read_bytes())
    target = cache_folder() / "native" / f"{source.parents[1].name}-{key.hexdigest()[:16]}.so"
    try:
        return _load(_compiled(compiler, source, target))
    except (OSError, subprocess.SubprocessError):
        pass
    try:  # a cache that is read-only or not ours: for this process alone
        with tempfile.TemporaryDirectory() as folder:
            return _load(_compiled(compiler, source, Path(folder) / target.name))
    except (OSError, subprocess.SubprocessError):
        return None


def _compiled(compiler: str, source: Path, target: Path) -> Path:
    """The library at the target, compiled where it is missing.

    It is compiled under a temporary name and then renamed: several processes may do so at once.
    """
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        bar(f"compiling {source.parents[1].name} for this processor, once"),
        tempfile.TemporaryDirectory(dir=target.parent) as folder,
    ):
        built = Path(folder) / target.name
        for variant in VARIANTS:
            command = [compiler, *OPTIONS, str(source), "-o", str(built), *variant]
            done = subprocess.run(command, capture_output=True, check=False, timeout=300)
            if done.returncode == 0:
                built.replace(target)
                return target
    raise OSError(f"{compiler} could not compile {source}")


def _load(path: Path) -> ctypes.CDLL:
    """Load a library that nobody but this user (or root) can have written."""
    for place in (path, path.parent):
        status = place.stat()
        if status.st_uid not in (os.getuid(), 0) or status.st_mode & 0o022:
            raise OSError(f"{place} could have been written by another user")
    return ctypes.CDLL(str(path))


def _processor() -> str:
    """What ``-march=native`` depends on: a cache folder may be shared between machines."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
        return "".join(line for line in lines if line.startswith(("model name", "flags", "Feat")))
    return platform.machine() + platform.processor()
