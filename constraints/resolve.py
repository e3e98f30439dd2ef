"""Write down the versions that an environment is made of: ``python constraints/resolve.py``.

Without an argument: the newest of everything that pyproject.toml admits for this Python, as
``py311.txt`` or the like, from which ``make`` installs. With ``lowest``: the lower bounds of
pyproject.toml, as ``lowest.txt``, from which ``make test-lowest`` installs; where they cannot be
had together, pip says which. Nothing is installed.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
EXTRAS = ("all", "dev", "ray", "tracing")
PLATFORM = re.compile(r"nvidia-.*|cuda-.*|triton")  # torch itself fixes these where it needs them


def lowest() -> list[str]:
    """Each requirement of pyproject.toml at its lower bound, without the tools of ``dev``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    extras = [
        line for name, lines in optional.items() if name not in ("dev", "docs") for line in lines
    ]
    wanted = [*project["dependencies"], *extras]
    bounds = {}
    for line in wanted:
        if match := re.match(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)", line):
            bounds[match[1].lower()] = match[2]
    return [f"{name}=={version}" for name, version in sorted(bounds.items())]


def resolved(*arguments: str) -> str:
    """Pip's report of what it would install into an empty environment; pip's error ends this."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--dry-run", "--ignore-installed", "--report", "-"),
            *("-e", f"{ROOT}[{','.join(EXTRAS)}]", *arguments),
        ],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def newest() -> list[str]:
    """What pip would install now into an empty environment, the build backend's parts included."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    done = resolved(*build, "editables", *sys.argv[1:])
    report = json.loads(done[done.index("{") :])
    found = {
        item["metadata"]["name"].lower().replace("_", "-"): item["metadata"]["version"]
        for item in report["install"]
    }
    found.pop("geodapt")
    # A local version, such as a CPU build's, is not on every index.
    return [
        f"{name}=={version.partition('+')[0]}"
        for name, version in sorted(found.items())
        if not PLATFORM.fullmatch(name)
    ]


def main() -> None:
    if "lowest" in sys.argv[1:]:
        path, lines, made = HERE / "lowest.txt", lowest(), "resolve.py lowest"
    else:
        name = f"py{sys.version_info.major}{sys.version_info.minor}.txt"
        path, lines, made = HERE / name, newest(), "make constraints"
    path.write_text("\n".join([f"# Made by {made}.", *lines, ""]))
    if made.endswith("lowest"):
        resolved("-c", str(path))
    print(f"{path}: {len(lines)} versions")


if __name__ == "__main__":
    main()
