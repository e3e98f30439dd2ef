"""Translates between an adapter's layer paths and a model's.

A task head puts a prefix before the base model's own paths (``model.layers.0`` in
``LlamaForCausalLM``, ``layers.0`` in ``LlamaModel``), and so does a model that holds another one
(``text_model.`` in CLIP). An adapter keeps the paths of the model class that its configuration
names, so that what is written loads there; a bank translates.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from torch import nn

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.base_model.sites import matrices, sites
from geodapt.adapters.peft_files import model_class
from geodapt.adapters.peft_files.configuration import configure
from geodapt.errors import InputError

Shape = tuple[int, int]
"""``(in_features, out_features)``."""

KINDS = (
    {"text": ("text", "language"), "pictures": ("vision", "visual", "image"), "sound": ("audio",)},
    {"in": ("encoder",), "out": ("decoder",)},
)
"""Words in the names of a model's parts and classes that say what they read, and to what end."""
PART = re.compile(
    r"(^|_)(model|module|backbone|transformer|encoder|decoder|tower|language|text|vision|visual"
    r"|image|audio|speech)(_|$)"
)
"""Names of parts that say nothing about the family, so that a prefix of them may differ."""
TOWERS = 8
"""How many of an adapter's towers are searched for by their ending."""


@dataclass(frozen=True)
class Naming:
    """An adapter's paths and a model's, which differ by the prefix that they begin with.

    A path that does not begin with the prefix is the same for both, as ``lm_head`` is.
    """

    theirs: str = ""
    """The adapter's prefix, with its last dot."""
    ours: str = ""
    """The model's prefix, with its last dot."""
    parts: tuple["Naming", ...] = ()
    """Parts of the model with prefixes of their own, which come first."""

    def to_model(self, path: str) -> str:
        """The model's path for an adapter's path."""
        for part in self.parts:
            if path.startswith(part.theirs):
                return part.to_model(path)
        return self.ours + path.removeprefix(self.theirs) if path.startswith(self.theirs) else path

    def to_adapter(self, path: str) -> str:
        """The adapter's path for a model's path."""
        for part in self.parts:
            if path.startswith(part.ours):
                return part.to_adapter(path)
        return self.theirs + path.removeprefix(self.ours) if path.startswith(self.ours) else path


def localise(model: nn.Module, paths: Iterable[str]) -> dict[str, str]:
    """Each adapter path's path in this model; what the model lacks is left out."""
    wanted: dict[str, Shape | None] = dict.fromkeys(paths)
    naming, layers = find_naming(model, wanted), matrices(sites(model))
    found = {path: naming.to_model(path) for path in wanted}
    return {path: here for path, here in found.items() if here in layers}


def find_naming(
    model: nn.Module,
    shapes: Mapping[str, Shape | None],
    trained_on: str | None = None,
    called: str = "the adapter",
) -> Naming:
    """How the paths of an adapter are named in a model.

    Of the prefixes by which at least one layer is found, the one that finds most layers, with the
    right shapes where ``shapes`` gives them; a part whose name says that it reads pictures does not
    fit an adapter for texts. Where several find as many, the model's own paths come first, then its
    task head's prefix, then the part of the model whose class is ``trained_on``.

    Or else one prefix for each part of the adapter, where each fits one of the model's alone: other
    versions of transformers named the parts of LLaVA and Qwen2-VL otherwise.

    Raises :class:`InputError` when several parts of the model fit alike.
    """
    layers = matrices(sites(model))
    sizes = {path: (site.in_features, site.out_features) for path, site in layers.items()}
    source, target = trained_on or "", type(model).__name__

    def score(naming: Naming, among: Collection[str] = ()) -> tuple[int, int]:
        if not _same_kind(source + naming.theirs, target + naming.ours):
            return 0, 0
        here = {path: naming.to_model(path) for path in among or shapes}
        found = [path for path, name in here.items() if name in sizes]
        if len({here[path] for path in found}) < len(found):  # two of its layers in one
            return 0, 0
        fitting = [p for p in found if shapes[p] is None or shapes[p] == sizes[here[p]]]
        return len(fitting), len(found)

    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    known = [Naming(), *([Naming(prefix, ""), Naming("", prefix)] if prefix != "." else [])]
    scores = {
        naming: score(naming) for naming in dict.fromkeys([*known, *_by_ending(shapes, layers)])
    }
    best = max(scores.values())
    parted = _by_parts(shapes, layers, score)
    if parted is not None and score(parted) == (len(shapes), len(shapes)) > best:
        return parted
    if best == (0, 0) and not _same_kind(source, target):
        raise InputError(
            f"{called} was trained on {source}, and this is {target}, which reads something "
            "else; load the part that it was trained on and give that to the bank"
        )
    first = [naming for naming, reached in scores.items() if reached == best]
    if best == (0, 0):
        return Naming()
    for naming in known:
        if naming in first:
            return naming
    if len(first) > 1 and trained_on:
        parts = dict(model.named_modules())
        named = [n for n in first if _class_at(parts, n.ours) == trained_on]
        first = named if len(named) == 1 else first
    if len(first) > 1:
        raise InputError(
            f"{called} fits several parts of {type(model).__name__} alike "
            f"({' and '.join(sorted(n.ours.rstrip('.') or 'the whole' for n in first))}); load "
            "the part that it was trained on and give that to the bank"
        )
    return first[0]


def aligned(adapters: Sequence[Adapter], like: Adapter) -> list[Adapter]:
    """Adapters of one base under the layer paths of one of them.

    One that was trained on the model with a task head, and one on the model without, call the
    same blocks by two prefixes.
    """
    result = []
    for adapter in adapters:
        naming = _between(_towers(adapter), _towers(like))
        source, target = (model_class.trained_on(a.config) or "" for a in (adapter, like))
        if naming is not None and _same_kind(source + naming.theirs, target + naming.ours):
            paths, heads = (
                {p: naming.to_model(p) for p in part} for part in (adapter.touched, adapter.heads)
            )
            adapter = adapter.under(paths, heads)
        result.append(adapter)
    return result


def under_model_names(adapter: Adapter, naming: Naming) -> Adapter:
    """An adapter whose configuration names this very model's class, by the model's paths.

    Trained inside of a wrapper (``model.model.layers``), or on the model without its head, it has
    others, under which PEFT would apply nothing on the class that is named.
    """
    paths = {path: naming.to_model(path) for path in adapter.touched}
    heads = {path: naming.to_model(path) for path in adapter.heads}
    if all(path == here for path, here in (paths | heads).items()):
        return adapter
    renamed = adapter.under(paths, heads)
    return replace(
        renamed,
        config=configure(renamed.factors, adapter, renamed.kinds),
        copies={naming.to_model(path): copy for path, copy in adapter.copies.items()},
        base_sha256=None,  # which is of the layers by their other names
    )


def _towers(adapter: Adapter) -> set[str]:
    return {tower(path) for path in adapter.factors} - {""}


def _between(theirs: set[str], ours: set[str]) -> Naming | None:
    """The naming of one tower by another that ends alike, where each adapter has but one."""
    if len(theirs) != 1 or len(ours) != 1 or theirs == ours:
        return None
    one, other = (next(iter(towers)).split(".") for towers in (theirs, ours))
    short, long = sorted((one, other), key=len)
    if long[len(long) - len(short) :] != short:
        return None
    prefix = ".".join(long[: len(long) - len(short)]) + "."
    return Naming(prefix, "") if long is one else Naming("", prefix)


def _by_ending(paths: Iterable[str], layers: Iterable[str]) -> Iterator[Naming]:
    """Prefixes after which one of the model's layers has the name of one of the adapter's.

    They differ before the first number alone: a block has the same number in both.
    """
    examples: dict[str, str] = {}
    for path in paths:
        if len(examples) < TOWERS and tower(path):
            examples.setdefault(tower(path), path)
    for example, path in product(examples.values(), layers):
        head, tail = example.split("."), _numbered(example)
        if _numbered(path) != tail or path == example:
            continue
        other = path.split(".")
        same = 0
        while same < min(len(head), len(other)) and head[-1 - same] == other[-1 - same]:
            same += 1
        theirs, ours = head[: len(head) - same], other[: len(other) - same]
        if all(PART.search(part) for part in (*theirs, *ours)):
            yield Naming(_prefix(theirs), _prefix(ours))


def _prefix(parts: Sequence[str]) -> str:
    return "".join(f"{part}." for part in parts)


def _by_parts(
    paths: Collection[str],
    layers: Collection[str],
    score: Callable[[Naming, Collection[str]], tuple[int, int]],
) -> Naming | None:
    """A naming with a prefix for each of the adapter's towers, and for each layer outside of one.

    None where one of them fits nothing of the model's, or several of its parts.
    """
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(tower(path) or path, []).append(path)
    if not 1 < len(groups) <= TOWERS:
        return None
    found: list[Naming] = []
    for name, group in sorted(groups.items(), key=lambda item: not tower(item[1][0])):
        if any(name.startswith(part.theirs) and part.to_model(name) in layers for part in found):
            continue  # beside a tower's blocks, as a pooler is
        if tower(group[0]):
            ways = {*_by_ending(group[:1], layers), Naming(f"{name}.", f"{name}.")}
        else:
            ends = (p for p in layers if f".{p}".endswith(f".{name}") or name.endswith(f".{p}"))
            ways = {Naming(name, path) for path in ends}
        ways = {way for way in ways if score(way, group)[0] == len(group)}
        if len(ways) != 1:
            return None
        found += ways
    return Naming(parts=tuple(sorted(found, key=lambda part: -len(part.theirs))))


def tower(path: str) -> str:
    """The part of a path before its first number: ``model.layers`` of ``model.layers.0.mlp``."""
    parts = path.split(".")
    first = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    return "" if first is None else ".".join(parts[:first])


def same_place(one: str, other: str) -> bool:
    """Whether two paths are the same but for what is before their module lists."""
    return _numbered(one) == _numbered(other) != ""


def _numbered(path: str) -> str:
    """A path from the module list that its first number indexes: ``layers.0.mlp``."""
    before = tower(path)
    return path[before.rfind(".") + 1 :] if before else ""


def _same_kind(one: str, other: str) -> bool:
    """Whether two names may speak of the same part: not where one reads texts, one pictures."""
    for kinds in KINDS:
        a, b = (
            {kind for kind, words in kinds.items() if any(word in name.lower() for word in words)}
            for name in (one, other)
        )
        if a and b and not a & b:
            return False
    return True


def _class_at(parts: Mapping[str, nn.Module], prefix: str) -> str:
    return type(parts[prefix[:-1]]).__name__ if prefix[:-1] in parts else ""
