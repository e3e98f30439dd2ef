"""Docstrings for the site: roles become links, literal blocks and examples become code."""

import re

import griffe

ROLE = re.compile(r":(?:py:)?(?:class|func|meth|mod|data|attr|exc|obj):`(~?)([\w.]+)`")


class Roles(griffe.Extension):
    """Rewrites each docstring of geodapt from Sphinx's roles to Markdown."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value, obj)


def markdown(text: str, obj: griffe.Object) -> str:
    text = ROLE.sub(lambda match: _link(*match.groups(), obj), text)
    text = re.sub(r"^::\n", "\n", text, flags=re.MULTILINE)
    text = re.sub(r"::\n\n(?= {4})", ":\n\n", text)
    return re.sub(r"(?:^ *(?:>>>|\.\.\.) .*\n?)+", _fenced, text, flags=re.MULTILINE)


def _link(short: str, target: str, obj: griffe.Object) -> str:
    shown = target.rpartition(".")[2] if short else target
    path = target
    if not target.startswith("geodapt"):
        try:
            path = obj.resolve(target)
        except griffe.NameResolutionError:
            path = f"{obj.module.path}.{target}"
    return f'<autoref identifier="{path}" optional>`{shown}`</autoref>'


def _fenced(match: re.Match[str]) -> str:
    lines = re.sub(r"  # doctest:.*$", "", match[0], flags=re.MULTILINE).rstrip("\n")
    return f"```python\n{lines}\n```\n"
