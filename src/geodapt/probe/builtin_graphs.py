"""Graphs that are on every machine: Python's loaded classes, and the built-in data's modules."""

from collections.abc import Callable


def loaded_class_edges() -> list[tuple[str, str]]:
    """Every class that is loaded, below ``object``: (base, class)."""
    edges, waiting, seen = [], [object], {object}
    while waiting:
        base = waiting.pop()
        for child in type.__subclasses__(base):
            edges.append((_qualified(base), _qualified(child)))
            if child not in seen:
                seen.add(child)
                waiting.append(child)
    return edges


def api_module_edges() -> list[tuple[str, str]]:
    """The items of the built-in data by module path: (package or module, what it holds).

    A root joins the packages.
    """
    from geodapt.data.api_calls import ApiCallSettings, load_api_calls, module_tree

    domains = load_api_calls(ApiCallSettings.model_validate({}))
    edges = module_tree(domains)
    packages = {parent for parent, _ in edges} - {child for _, child in edges}
    return [*(("packages", package) for package in sorted(packages)), *edges]


def _qualified(kind: type) -> str:
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else (f"{kind.__module__}.{kind.__qualname__}")
    )


BUILT_IN: dict[str, Callable[[], list[tuple[str, str]]]] = {
    "classes": loaded_class_edges,
    "api-calls": api_module_edges,
}
"""Name -> its edges."""
