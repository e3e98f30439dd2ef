"""How a package's own source and test files call the package's public functions.

Run as a script in an interpreter of its own, ``python mining.py MODULE OUT.json``: importing the
package to look up names and docstrings then neither changes nor depends on what the caller has
loaded. Only the standard library is imported here, so that it starts at once. Files are parsed,
never run.

OUT.json holds ``items``, ``{name, text}`` of every public callable that was called, and
``bodies``, ``{file, function, calls}`` with indexes into ``items``, in the order in which the
calls run. While it works it prints ``done/total`` in files, a line a file.
"""

import ast
import contextlib
import importlib
import importlib.util
import inspect
import json
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

Dotted = tuple[str, tuple[str, ...]]
"""A module's name and the attributes to take from it, one after another."""

# Tests, vendored packages, and the places where packages keep what is not for users.
NOT_API = {"tests", "testing", "conftest", "pytest", "externals", "extern", "vendored"} | {
    *("core", "compat", "distutils", "f2py"),
}
ASSERTION = re.compile(r"assert|raises$|fail|skip|(nodes|edges|graphs)_equal$")


# --- names in a file ---------------------------------------------------------------------------


def imported(node: ast.Import | ast.ImportFrom, module: str, is_package: bool) -> Iterator[tuple]:
    """The ``(name, Dotted)`` pairs that an import statement binds; ``*`` stays a name."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.asname:
                yield alias.asname, (alias.name, ())
            else:
                root = alias.name.split(".")[0]
                yield root, (root, ())
        return
    base = node.module or ""
    if node.level:
        parts = module.split(".")
        parts = parts[: len(parts) - node.level + is_package]
        base = ".".join([*parts, base] if base else parts)
    for alias in node.names:
        yield alias.asname or alias.name, (base, (alias.name,))


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module or class, those under ``if``, ``try`` and ``with`` included."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            for field in ("body", "orelse", "finalbody"):
                yield from statements(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                yield from statements(handler.body)


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


def functions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions and methods with their names; a nested function belongs to the one around it."""
    for node in statements(body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node  # type: ignore[misc]
        elif isinstance(node, ast.ClassDef):
            yield from functions(node.body, f"{prefix}{node.name}.")


class Calls(ast.NodeVisitor):
    """The calls of one function body whose names resolve, in the order in which they run."""

    def __init__(self, function: ast.FunctionDef, names: dict[str, Dotted], module: str, pkg: bool):
        self.names = dict(names)
        self.found: list[Dotted] = []
        local_imports: dict[str, Dotted] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.arg):
                self.names.pop(node.arg, None)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self.names.pop(node.id, None)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                local_imports.update(imported(node, module, pkg))
            elif isinstance(node, ast.FunctionDef | ast.ClassDef) and node is not function:
                self.names.pop(node.name, None)
        self.names.update(local_imports)
        for statement in function.body:
            self.visit(statement)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)  # arguments are evaluated before the call
        dotted = self.dotted(node.func)
        if dotted is not None:
            self.found.append(dotted)

    def dotted(self, node: ast.expr) -> Dotted | None:
        attributes: list[str] = []
        while isinstance(node, ast.Attribute):
            attributes.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.names:
            return None
        module, first = self.names[node.id]
        return module, (*first, *reversed(attributes))


# --- what the names mean -----------------------------------------------------------------------


def is_public(path: str) -> bool:
    """Whether no part of a dotted path is private or belongs to tests."""
    parts = path.split(".")
    return not any(p.startswith(("_", "test_")) or p in NOT_API for p in parts)


def load(module: str) -> ModuleType | None:
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
    loaded = load(module)
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
    """The public callables of a package, each under one name: its shortest public path."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.resolved: dict[Dotted, str | None] = {}
        self.objects: dict[str, Any] = {}
        self.shortest: dict[int, str] = {}
        self.keep: list[Any] = []  # objects must live for their ids to stay theirs

    def scan(self, modules: list[str]) -> None:
        """Learn the public paths of everything that the given modules export."""
        for module in modules:
            for name in exported(module):
                path = f"{module}.{name}"
                value = getattr(sys.modules[module], name, None)
                if value is None or not is_public(path):
                    continue
                known = self.shortest.get(id(value))
                if known is None or self.rank(path, value) < self.rank(known, value):
                    self.shortest[id(value)] = path
                    self.keep.append(value)

    @staticmethod
    def rank(path: str, value: Any) -> tuple[int, bool, int, str]:
        """Fewest dots first; of aliases (sympy.log, sympy.ln) the name given at the definition."""
        renamed = path.rsplit(".", 1)[-1] != getattr(value, "__name__", None)
        return path.count("."), renamed, len(path), path

    def follow(self, dotted: Dotted) -> tuple[Any, str | None]:
        """The object behind a name, and its shortest public path."""
        module, attributes = dotted
        value: Any = load(module)
        path = module if value is not None and is_public(module) else None
        for attribute in attributes:
            if value is None:
                return None, None
            inside_module = isinstance(value, ModuleType)
            try:
                following = getattr(value, attribute)
            except Exception:
                following = load(f"{value.__name__}.{attribute}") if inside_module else None
            if isinstance(following, ModuleType):
                path = following.__name__ if is_public(following.__name__) else None
            elif inside_module:
                path = self.shortest.get(id(following))
            else:  # a class's method, an object's attribute
                path = f"{path}.{attribute}" if path and is_public(attribute) else None
            value = following
        return value, path

    def name(self, dotted: Dotted) -> str | None:
        """The public name of what is called, or None when it is not part of the API."""
        if dotted not in self.resolved:
            value, path = self.follow(dotted)
            if path is not None and self.counts(value, path):
                self.objects[path] = value
                self.resolved[dotted] = path
            else:
                self.resolved[dotted] = None
        return self.resolved[dotted]

    def counts(self, value: Any, path: str) -> bool:
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
        if text and not re.fullmatch(r"[\w.]+\(.*\)( *->.*)?", text):
            return text
    return ""


# --- the whole package -------------------------------------------------------------------------


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
    load(package)
    for _, module, is_package in files:
        if is_package and is_public(module):
            load(module)
    api = Api(package)
    found: list[tuple[str, str, list[Dotted]]] = []
    for done, (path, module, is_package) in enumerate(files, 1):
        print(f"{done}/{len(files)}", flush=True)
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # a fixture for another Python
        names = module_names(tree, module, is_package)
        for function, node in functions(tree.body):
            calls = Calls(node, names, module, is_package).found
            calls = [c for c in calls if c[0].split(".")[0] == package]
            if len(calls) > 1:
                found.append((path.as_posix(), function, calls))
    for module in sorted({call[0] for _, _, calls in found for call in calls}):
        load(module)
    api.scan(sorted(m for m in sys.modules if m.split(".")[0] == package and is_public(m)))

    root = source_folder(package).parent
    index: dict[str, int] = {}
    bodies = []
    for file, function, calls in found:
        resolved: list[int] = []
        for call in calls:
            name = api.name(call)
            if name is None:
                continue
            item = index.setdefault(name, len(index))
            if not resolved or resolved[-1] != item:  # a run of one call is one call
                resolved.append(item)
        if len(resolved) > 1:
            relative = Path(file).relative_to(root).as_posix()
            bodies.append({"file": relative, "function": function, "calls": resolved})
    items = []
    for name in index:
        paragraph = first_paragraph(api.objects[name])
        items.append({"name": name, "text": f"{name}: {paragraph}" if paragraph else name})
    return {"items": items, "bodies": bodies}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.setrecursionlimit(20_000)
    with contextlib.suppress(ImportError):
        import matplotlib

        matplotlib.use("agg")
    result = mine(sys.argv[1])
    Path(sys.argv[2]).write_text(json.dumps(result))
