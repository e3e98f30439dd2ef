"""The CPU kernels of ``_kernels.c``, compiled once by the machine's own C compiler.

They are an accelerator, not a requirement: where there is no compiler, or ``GEODAPT_NATIVE=0``
is set, :mod:`geodapt.geometry._rows` computes the same sums with PyTorch operators in float64.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from geodapt.files import cache_folder

SOURCE = Path(__file__).with_name("_kernels.c")
OPTIONS = ["-O3", "-march=native", "-ffp-contract=fast", "-fPIC", "-shared"]


@cache
def library() -> ctypes.CDLL | None:
    """The loaded kernels, or None where they cannot be had."""
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None or os.environ.get("GEODAPT_NATIVE") == "0":
        return None
    key = hashlib.sha256(SOURCE.read_bytes() + f"{compiler}|{_processor()}".encode())
    target = cache_folder() / "native" / f"geometry-{key.hexdigest()[:16]}.so"
    try:
        if not target.is_file():
            _compile(compiler, target)
        kernels = ctypes.CDLL(str(target))
    except OSError:  # no compiler that works, a read-only cache, a foreign binary
        return None
    size, pointer = ctypes.c_ssize_t, ctypes.c_void_p
    kernels.dot.argtypes = [pointer] * 3 + [size] * 2
    kernels.dots.argtypes = [pointer] * 3 + [size] * 3 + [ctypes.c_int]
    kernels.combine.argtypes = [pointer] * 5 + [size] * 2
    for kernel in (kernels.dot, kernels.dots, kernels.combine):
        kernel.restype = None
    return kernels


def _compile(compiler: str, target: Path) -> None:
    """Compile to a temporary name, then rename: several processes may do so at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder) / target.name
        for threads in (["-fopenmp"], ["-fopenmp-simd"], []):
            command = [compiler, *OPTIONS, *threads, str(SOURCE), "-o", str(built)]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                built.replace(target)
                return
    raise OSError(f"{compiler} could not compile {SOURCE.name}")


def _processor() -> str:
    """What ``-march=native`` depends on: a cache folder may be shared between machines."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
        return "".join(line for line in lines if line.startswith(("model name", "flags")))
    return platform.machine() + platform.processor()
