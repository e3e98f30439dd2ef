"""Style, types and floors as `make lint` has them, and how the code is laid out."""

import ast
import os
import subprocess
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
CODE = [name for name in ("src", "tests", "benchmarks", "constraints") if (ROOT / name).is_dir()]


@pytest.mark.house
@pytest.mark.parametrize(
    "command",
    [
        ["-m", "ruff", "check", *CODE],
        ["-m", "ruff", "format", "--check", *CODE],
        pytest.param(["-m", "mypy"], marks=pytest.mark.slow),
        ["-c", "from importlinter.cli import lint_imports_command as main; main()"],
    ],
    ids=["lint", "format", "types", "floors"],
)
def test_house_is_in_order(command):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


SAME_NAME = {
    name: {"geodapt.geometry.lorentz", "geodapt.geometry.poincare"}  # two geometries
    for name in ("distance", "exp", "exp0", "log", "log0", "pairwise_distance")
}
"""Public names that stand in several modules on purpose -> those modules."""


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.house
def test_no_module_imports_itself_in_a_circle():
    """Imports inside functions and for types alone count, too."""
    graph = grimp.build_graph("geodapt", exclude_type_checking_imports=False)
    below = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    try:
        TopologicalSorter(below).prepare()
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' <- '.join(error.args[1])}")


@pytest.mark.house
def test_a_public_name_stands_in_one_module():
    """A command is named as it is typed; modules named with an underscore are a package's own."""
    places: dict[str, set[str]] = {}
    for path in sources("src"):
        if path.parent.name == "cli" or (path.stem.startswith("_") and path.stem != "__init__"):
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, set()).add(module_of(path))
    several = {name: modules for name, modules in places.items() if len(modules) > 1}
    assert {n: m for n, m in several.items() if m != SAME_NAME.get(n)} == {}


@pytest.mark.house
def test_files_are_short():
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for path in sources("src", "tests")
    }
    assert {path: lines for path, lines in lengths.items() if lines > 400} == {}


@pytest.mark.house
def test_no_two_files_on_the_path_of_imports_have_one_name():
    """pytest puts each folder of tests there, beside the benchmarks: the first found is taken."""
    tests, scripts = sources("tests"), {path.name for path in sources("benchmarks")}
    names = Counter(path.name for path in tests if path.name.startswith("test_"))
    assert [name for name, times in names.items() if times > 1] == []
    assert [str(path) for path in tests if path.name in scripts] == []
