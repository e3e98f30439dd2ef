"""What a Python file imports, which functions it has, and what they call, from its syntax tree.

Only the standard library is imported.
"""

import ast
from collections.abc import Iterator

Dotted = tuple[str, tuple[str, ...]]
"""A module's name and the attributes to take from it, one after another."""


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


def functions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions and methods with their names; a nested function belongs to the one around it."""
    for node in statements(body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node  # type: ignore[misc]
        elif isinstance(node, ast.ClassDef):
            yield from functions(node.body, f"{prefix}{node.name}.")


class FunctionBody:
    """The calls in a function's body in the order in which they run, and the names it binds."""

    def __init__(self, function: ast.FunctionDef, module: str, is_package: bool) -> None:
        self.module, self.is_package = module, is_package
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        self.imports: dict[str, Dotted] = {}
        self.bound = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
        for statement in function.body:
            self.visit(statement)

    def visit(self, node: ast.AST) -> None:
        kind = type(node)
        if kind is ast.Name:
            if isinstance(node.ctx, ast.Store):  # type: ignore[attr-defined]
                self.bound.add(node.id)  # type: ignore[attr-defined]
            return
        if isinstance(node, ast.arg):
            self.bound.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self.bound.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            self.imports.update(imported(node, self.module, self.is_package))
        for field in kind._fields:
            value = getattr(node, field, None)
            if isinstance(value, ast.AST):
                self.visit(value)
            elif type(value) is list:
                for child in value:
                    if isinstance(child, ast.AST):
                        self.visit(child)
        if isinstance(node, ast.Call):  # after its arguments, as it runs
            self.call(node.func)

    def call(self, function: ast.expr) -> None:
        attributes: list[str] = []
        while isinstance(function, ast.Attribute):
            attributes.append(function.attr)
            function = function.value
        if isinstance(function, ast.Name):
            self.calls.append((function.id, tuple(reversed(attributes))))

    def resolved(self, names: dict[str, Dotted]) -> list[Dotted]:
        """The calls whose first name is imported or defined in the file, not bound in the body."""
        found = []
        for name, attributes in self.calls:
            known = self.imports.get(name) or (None if name in self.bound else names.get(name))
            if known is not None:
                found.append((known[0], known[1] + attributes))
        return found
