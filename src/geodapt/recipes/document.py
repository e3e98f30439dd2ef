"""A YAML mapping that remembers the place of each value.

YAML is read by version 1.2's core rules, not PyYAML's 1.1, so that ``1e-4`` is a number, and
``no``, ``12:30`` and ``2024-01-01`` are text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from geodapt.errors import InputError
from geodapt.paths import regular

Keys = tuple[str | int, ...]

_SCALARS = {
    "tag:yaml.org,2002:bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "tag:yaml.org,2002:int": (r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    "tag:yaml.org,2002:float": (
        r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "tag:yaml.org,2002:null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
}


PLAIN = {*_SCALARS, *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))}
LARGEST, MOST_VALUES, DEEPEST, LONGEST_NUMBER = 64_000, 10_000, 50, 40
"""Limits on a recipe's characters, values, nesting, and digits of a number: far above any recipe,
and still quick to read."""


class _Loader(yaml.SafeLoader):
    """Reads plain scalars by the rules below alone."""


class _Dumper(yaml.SafeDumper):
    """Quotes text that those rules would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {}
    for _tag, (_pattern, _first) in _SCALARS.items():
        _class.add_implicit_resolver(_tag, re.compile(f"(?:{_pattern})$"), list(_first))


def dump(values: dict[str, Any]) -> str:
    """YAML that :class:`Document` reads back to the same values."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=96)


@dataclass
class Document:
    """A recipe's values, and for each of them the place it came from."""

    name: str
    """What error messages call the file."""
    values: dict[str, Any]
    origins: dict[Keys, str] = field(default_factory=dict)
    """Path of keys -> ``my.yaml:12`` or ``override 'a.b=1'``."""

    @classmethod
    def read(cls, path: Path, name: str) -> "Document":
        """Read a file; raises :class:`InputError` with line and column when it is not YAML."""
        try:
            with regular(path).open(encoding="utf-8-sig") as file:
                return cls.parse(file.read(LARGEST + 1), name)
        except UnicodeDecodeError as error:
            raise InputError(f"{name} is not a UTF-8 text file: {error}") from error
        except OSError as error:
            raise InputError(f"{name} cannot be read: {error.strerror}") from error

    @classmethod
    def parse(cls, text: str, name: str) -> "Document":
        """Read YAML text; its top must be a mapping."""
        values, places = _parse(text, name)
        if not isinstance(values, dict):
            raise InputError(
                f"{name} does not hold 'key: value' lines; a recipe starts with 'recipe: SYSTEM'"
            )
        return cls(name, values, {keys: f"{name}:{line}" for keys, line in places})

    def override(self, assignment: str) -> None:
        """Apply a ``key=value``: dots go down the keys, and the value is YAML."""
        key, equals, text = assignment.partition("=")
        parts = [part.strip() for part in key.split(".")]
        here = f"override '{assignment if len(assignment) <= 80 else assignment[:77] + '...'}'"
        if not equals or not all(parts):
            raise InputError(f"{here} is not of the form key=value, such as training.steps=300")
        if len(parts) > DEEPEST:
            raise InputError(f"{here} goes down {len(parts)} keys; no recipe is so deep")
        value, _ = _parse(text, here)
        keys: Keys = ()
        holder: Any = self.values
        for part in parts[:-1]:
            holder, keys = self._enter(holder, keys, part, here)
        index = self._index(holder, keys, parts[-1], here)
        holder[index] = value
        keys = (*keys, index)
        self.origins = {old: at for old, at in self.origins.items() if old[: len(keys)] != keys}
        self.origins[keys] = here

    def _enter(self, holder: Any, keys: Keys, part: str, here: str) -> tuple[Any, Keys]:
        """One step down towards the value to override, creating missing mappings."""
        index = self._index(holder, keys, part, here)
        if isinstance(holder, dict) and holder.get(index) is None:
            holder[index] = {}
            self.origins[(*keys, index)] = here
        return holder[index], (*keys, index)

    def _index(self, holder: Any, keys: Keys, part: str, here: str) -> str | int:
        if isinstance(holder, dict):
            return part
        path = ".".join(map(str, keys))
        if not isinstance(holder, list):
            raise InputError(f"{here}: '{path}' is {holder!r}, which has no keys below it")
        if not part.isdecimal() or int(part) >= len(holder):
            raise InputError(
                f"{here}: '{path}' is a list of {len(holder)}; "
                f"give a position from 0 to {len(holder) - 1}, not '{part}'"
            )
        return int(part)

    def overridden(self, keys: Keys) -> bool:
        """Whether a value comes from an override, not from the file."""
        return self.where(keys).startswith("override ")

    def where(self, keys: Keys) -> str:
        """The place of a value, or of the nearest thing above it that was written down."""
        for length in range(len(keys), 0, -1):
            if keys[:length] in self.origins:
                return self.origins[keys[:length]]
        return self.name


def _parse(text: str, name: str) -> tuple[Any, list[tuple[Keys, int]]]:
    """The value of a YAML text, and the line of each path of keys in it."""
    if len(text) > LARGEST:
        raise InputError(f"{name} has more than {LARGEST:,} characters, which no recipe needs")
    try:
        text.encode()  # half a character is no text
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, []
        places: list[tuple[Keys, int]] = []
        for place in _places(node, (), name):
            places.append(place)
            if len(places) > MOST_VALUES:
                raise InputError(
                    f"{name}: holds more than {MOST_VALUES:,} values, each alias counted as what "
                    "it stands for; write fewer"
                )
        return loader.construct_document(node), places
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        what = ", ".join(filter(None, (error.context, error.problem)))
        raise InputError(f"{name}{at}: not valid YAML: {what}") from error
    except RecursionError as error:
        raise InputError(f"{name}: not a recipe: brackets are nested too deep") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{name}: not valid YAML: {error}") from error


def _places(node: yaml.Node, keys: Keys, name: str) -> Iterator[tuple[Keys, int]]:
    """Each path of keys below a node with its line; refuses values that no recipe has."""
    line = node.start_mark.line + 1
    if len(keys) > DEEPEST:
        raise InputError(
            f"{name}:{line}: values nested more than {DEEPEST} deep, or an alias that refers to "
            "what it stands in"
        )
    _check_tag(node, name)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*keys, index), item.start_mark.line + 1
            yield from _places(item, (*keys, index), name)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(f"{name}:{line}: a key must be a plain word")
            _check_tag(key, name)
            if key.value in seen:
                raise InputError(
                    f"{name}:{line}: key '{key.value}' stands here a second time; "
                    f"the first is on line {seen[key.value]}"
                )
            seen[key.value] = line
            yield (*keys, key.value), line
            yield from _places(value, (*keys, key.value), name)


def _check_tag(node: yaml.Node, name: str) -> None:
    """Refuse explicit tags (``!!timestamp``, ``!!int ''``), and numbers of too many digits."""
    here = f"{name}:{node.start_mark.line + 1}"
    if node.tag not in PLAIN:
        raise InputError(f"{here}: the tag {node.tag} has no meaning in a recipe; leave it out")
    if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
        kind, text = node.tag.rpartition(":")[2], node.value
        if len(text) > LONGEST_NUMBER or not re.fullmatch(_SCALARS[node.tag][0], text):
            raise InputError(f"{here}: '{text[:40]}' is not read as {kind}; put text in quotes")
