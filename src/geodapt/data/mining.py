"""How a package's own source and test files call the package's public functions.

Run as a script in an interpreter of its own, ``python mining.py MODULE OUT.json``: importing the
package to look up names and docstrings then neither changes nor depends on what the caller has
loaded. Besides the standard library only :mod:`geodapt.data.call_syntax` is imported, so that it
starts at once. Files are parsed, never run.

OUT.json holds ``items``, ``{name, text}`` of every public callable that was called, and
``bodies``, ``{file, function, calls}`` with indexes into ``items``, in the order in which the
calls run. While it works it prints ``done/total`` in files, one line per file.
"""

import ast
import contextlib
import gc
import importlib
import importlib.util
import inspect
import json
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from geodapt.data.call_syntax import Dotted, FunctionBody, functions, imported, statements

# Tests, vendored packages, and the places where packages keep what is not for users.
NOT_API = {"tests", "testing", "conftest", "pytest", "externals", "extern", "vendored"} | {
    *("core", "compat", "distutils", "f2py"),
}
ASSERTION = re.compile(r"assert|raises$|fail|skip|(nodes|edges|graphs)_equal$")


def module_names(tree: ast.Module, module: str, is_package: bool) -> dict[str, Dotted]:
    """What the names at the top of a file stand for."""
    names: dict[str, Dotted] = {}
    for node in statements(tree.body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name, dotted in imported(node, module, is_package):
                if name == "*":
                    names.update((n, (dotted[0], (n,))) for n in exported(dotted[0]))
                else:
                    names[name] = dotted
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[node.name] = (module, (node.name,))
    return names


def is_public(path: str) -> bool:
    """Whether no part of a dotted path is private or belongs to tests."""
    parts = path.split(".")
    return not any(p.startswith(("_", "test_")) or p in NOT_API for p in parts)


def import_quietly(module: str) -> ModuleType | None:
    """The module, or None where it does not import (an optional dependency, another system)."""
    if module in sys.modules:
        return sys.modules[module]
    if any(p in ("tests", "conftest") or p.startswith("test_") for p in module.split(".")):
        return None
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit):
        return None


def exported(module: str) -> list[str]:
    """The public names of a module: ``__all__``; else all of a package, the own of a file."""
    loaded = import_quietly(module)
    if loaded is None:
        return []
    if isinstance(getattr(loaded, "__all__", None), list | tuple):
        return [name for name in loaded.__all__ if not name.startswith("_")]
    own = not hasattr(loaded, "__path__")
    return [
        name
        for name, value in vars(loaded).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and not (own and getattr(value, "__module__", module) != module)
    ]


class Api:
    """The public callables of a package, each under one name.

    The name is the shortest public path; of aliases (sympy.Eq, sympy.Equality) the one that the
    package itself calls most.
    """

    def __init__(self, package: str, calls: Iterable[Dotted]) -> None:
        self.package = package
        self.chains: dict[Dotted, list[Any]] = {}
        self.used: Counter[tuple[int, str]] = Counter()
        for call in calls:
            if call not in self.chains:
                self.chains[call] = self.follow(call)  # kept, so that ids stay theirs
            for value, name in zip(self.chains[call][1:], call[1], strict=False):
                self.used[id(value), name] += 1
        self.paths: dict[int, str] = {}
        for module in sorted(sys.modules):
            if module.split(".")[0] == package and is_public(module):
                self.scan(module)

    @staticmethod
    def follow(dotted: Dotted) -> list[Any]:
        """The module and the object that each attribute resolves to, until one does not resolve."""
        module, attributes = dotted
        chain: list[Any] = [import_quietly(module)]
        for attribute in attributes:
            try:
                following = getattr(chain[-1], attribute)
            except Exception:
                is_module = isinstance(chain[-1], ModuleType)
                following = (
                    import_quietly(f"{chain[-1].__name__}.{attribute}") if is_module else None
                )
            if following is None:
                break
            chain.append(following)
        return chain

    def scan(self, module: str) -> None:
        """Learn the public paths of everything that a module exports."""
        for name in exported(module):
            value = getattr(sys.modules[module], name, None)
            path = f"{module}.{name}"
            if value is None or isinstance(value, ModuleType) or not is_public(path):
                continue
            known = self.paths.get(id(value))
            if known is None or self.rank(path, value) < self.rank(known, value):
                self.paths[id(value)] = path

    def rank(self, path: str, value: Any) -> tuple[int, int, int, str]:
        name = path.rsplit(".", 1)[-1]
        return path.count("."), -self.used[id(value), name], len(path), path

    def name(self, dotted: Dotted) -> str | None:
        """The public name of what is called, or None when it is not part of the API."""
        chain = self.chains[dotted]
        if len(chain) != 1 + len(dotted[1]):
            return None
        modules = sum(isinstance(value, ModuleType) for value in chain)
        if modules == len(chain):
            return None
        # What a module holds has a path of its own; what a class or object holds, below that.
        path = ".".join([self.paths.get(id(chain[modules]), "_"), *dotted[1][modules:]])
        return path if is_public(path) and self.counts(chain[-1], path) else None

    def counts(self, value: Any, path: str) -> bool:
        """Whether a public object is a function, class or method of this very package."""
        if not callable(value) or ASSERTION.match(path.rsplit(".", 1)[-1]):
            return False
        if isinstance(value, type) and issubclass(value, BaseException):
            return False
        home = getattr(value, "__module__", None) or self.package
        return str(home).split(".")[0] == self.package


def first_paragraph(value: Any) -> str:
    """The first paragraph of a docstring on one line; a leading signature is passed over."""
    try:
        doc = inspect.getdoc(value) or ""
    except Exception:
        return ""
    for paragraph in re.split(r"\n\s*\n", doc.strip()):
        text = " ".join(paragraph.split())
        if text and not re.fullmatch(r"[\w.]+\(.*\)( *->.*| *--)?", text):
            return text
    return ""


def source_folder(package: str) -> Path:
    """Where an installed package's files are."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not an installed package")
    return Path(next(iter(spec.submodule_search_locations)))


def source_files(package: str) -> list[tuple[Path, str, bool]]:
    """Every Python file of a package with its module's name, and whether it is an ``__init__``."""
    root = source_folder(package)
    files = []
    for path in sorted(root.rglob("*.py")):
        parts = [package, *path.relative_to(root).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        files.append((path, ".".join(parts[:-1] if is_package else parts), is_package))
    return files


def mine(package: str) -> dict[str, list[dict]]:
    """All function bodies of a package with their calls of its public API, two or more each."""
    files = source_files(package)
    importlib.import_module(package)  # where this fails, nothing else can work
    for _, module, is_package in files:
        if is_package and is_public(module):
            import_quietly(module)
    found: list[tuple[Path, str, list[Dotted]]] = []
    for done, (path, module, is_package) in enumerate(files, 1):
        print(f"{done}/{len(files)}", flush=True)
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # a fixture for another Python, or one that nests too deep for this one
        names = module_names(tree, module, is_package)
        for function, node in functions(tree.body):
            calls = FunctionBody(node, module, is_package).resolved(names)
            calls = [c for c in calls if c[0].split(".")[0] == package]
            if len(calls) > 1:
                found.append((path, function, calls))
    api = Api(package, (call for _, _, calls in found for call in calls))
    root = source_folder(package).parent
    index: dict[str, int] = {}
    objects: list[Any] = []
    bodies = []
    for file, function, calls in found:
        resolved: list[int] = []
        for call in calls:
            name = api.name(call)
            if name is None:
                continue
            if name not in index:
                index[name] = len(index)
                objects.append(api.chains[call][-1])
            if not resolved or resolved[-1] != index[name]:  # a run of one call is one call
                resolved.append(index[name])
        if len(resolved) > 1:
            relative = file.relative_to(root).as_posix()
            bodies.append({"file": relative, "function": function, "calls": resolved})
    items = []
    for name, value in zip(index, objects, strict=True):
        paragraph = first_paragraph(value)
        items.append({"name": name, "text": f"{name}: {paragraph}" if paragraph else name})
    return {"items": items, "bodies": bodies}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.setrecursionlimit(20_000)  # sums of a thousand terms nest as deep
    gc.disable()  # syntax trees have no cycles, and looking for them takes a third of the time
    with contextlib.suppress(ImportError):
        import matplotlib

        matplotlib.use("agg")
    result = mine(sys.argv[1])
    Path(sys.argv[2]).write_text(json.dumps(result))
