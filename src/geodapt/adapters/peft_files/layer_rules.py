"""Which layers an adapter configuration names, and with what rank and scale: PEFT's rules.

PEFT's own functions pass patterns from the file to ``re``, which may not terminate. Plain names and
path endings, which nearly all patterns are, are looked up here without any matching, and the
others are matched in bounded time.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from peft import LoraConfig

from geodapt.adapters.peft_files.safe_regex import SPECIAL, SafeRegex, TimeBudget


class LayerRules:
    """The rules of one configuration, prepared for many layers.

    Equal to PEFT 0.21's ``check_target_module_exists`` and ``get_pattern_key``. ``where`` is
    what errors call the configuration. Raises :class:`InputError` for a pattern that is invalid
    or takes too long.
    """

    def __init__(self, config: LoraConfig, where: str = "the adapter's configuration") -> None:
        budget = TimeBudget()
        self._config = config
        self._ranks = _Patterns(config.rank_pattern, f"{where}, rank_pattern", budget)
        self._alphas = _Patterns(config.alpha_pattern, f"{where}, alpha_pattern", budget)
        self._targets, self._excluded = (
            SafeRegex(value, f"{where}, {name}", budget)
            if isinstance(value, str) and value != "all-linear"
            else value
            for name, value in (
                ("target_modules", config.target_modules),
                ("exclude_modules", config.exclude_modules),
            )
        )
        numbers = config.layers_to_transform
        self._numbers = {numbers} if isinstance(numbers, int) else set(numbers or ()) or None
        layers = config.layers_pattern or []
        self._lists = [
            re.compile(rf"(?:^|.*?\.){re.escape(name)}\.(\d+)\.")
            for name in ([layers] if isinstance(layers, str) else layers)
        ] or [re.compile(r".*?\.[^.]*\.(\d+)\.")]

    def rank(self, path: str) -> int:
        """The rank of a layer's factors."""
        return self._ranks.get(path, self._config.r)

    def scale(self, path: str, rank: int) -> float:
        """``alpha / r``, or ``alpha / sqrt(r)`` with rsLoRA (Kalajdzievski 2023)."""
        alpha = self._alphas.get(path, self._config.lora_alpha)
        return alpha / (math.sqrt(rank) if self._config.use_rslora else rank)

    @property
    def names_layers(self) -> bool:
        """Whether the configuration says which layers it targets."""
        return self._config.target_modules not in (None, "all-linear")

    def targets(self, path: str) -> bool:
        """Whether the configuration targets a layer."""
        if not self.names_layers or _named(self._excluded, path):
            return False
        if any(f".{name}." in f".{path}." for name in self._config.modules_to_save or ()):
            return False
        if not _named(self._targets, path):
            return False
        if self._numbers is None or path in self._config.target_modules:  # type: ignore[operator]
            return True
        found = next((match for match in (r.match(path) for r in self._lists) if match), None)
        return found is not None and int(found[1]) in self._numbers


class _Patterns:
    """A mapping from patterns to values; the first pattern that matches a layer's path counts.

    A pattern matches a whole path, or its end after a dot. Patterns of plain characters are
    kept in tables by their length and the places of their unescaped dots, which match any
    character there.
    """

    def __init__(self, patterns: Mapping[str, Any] | None, where: str, budget: TimeBudget) -> None:
        self.values, self.where, self.budget = list((patterns or {}).values()), where, budget
        self.tables: dict[tuple[int, tuple[int, ...], bool], dict[str, int]] = {}
        self.regexes: list[tuple[int, SafeRegex]] = []
        for number, pattern in enumerate(patterns or {}):
            literal = _literal(pattern)
            if literal is None:
                # The text that PEFT matches, so that group numbers and flags mean the same.
                text = rf"(.*\.)?({pattern})$"
                self.regexes.append((number, SafeRegex(text, where, budget)))
            else:
                text, dots, whole = literal
                table = self.tables.setdefault((len(text), dots, whole), {})
                table.setdefault(text, number)

    def get(self, path: str, default: Any) -> Any:
        found = len(self.values)
        with self.budget.spend(self.where):
            for (length, dots, whole), table in self.tables.items():
                start = len(path) - length
                if start == 0 or (start > 0 and not whole and path[start - 1] == "."):
                    end = list(path[start:])
                    for place in dots:
                        end[place] = "."
                    found = min(found, table.get("".join(end), found))
        for number, pattern in self.regexes:
            if number > found:
                break
            if pattern.fullmatch(path):
                found = number
        return self.values[found] if found < len(self.values) else default


def _literal(pattern: str) -> tuple[str, tuple[int, ...], bool] | None:
    """A pattern's text, the places of dots that match anything, and whether it is a whole path."""
    whole = pattern.startswith("^")
    text, dots = "", []
    for token in re.findall(r"\\.|.", pattern.removeprefix("^"), re.DOTALL):
        if token == ".":
            dots.append(len(text))
        elif token in SPECIAL or (len(token) == 2 and token[1].isascii() and token[1].isalnum()):
            return None
        text += token[-1]
    return text, tuple(dots), whole


def _named(names: Any, path: str) -> bool:
    if isinstance(names, SafeRegex):
        return names.fullmatch(path)
    return bool(names) and any(ending in names for ending in _endings(path))


def _endings(path: str) -> Iterator[str]:
    """The path, and what follows each of its dots."""
    yield path
    for place, character in enumerate(path):
        if character == ".":
            yield path[place + 1 :]
