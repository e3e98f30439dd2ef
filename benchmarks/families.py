"""A bank beside PEFT on every transformers family that builds in a moment.

For each family two adapters of different rank are made with PEFT on all of its linear layers and
loaded into a bank; then the bank without adapters, with one, with both, with one per row, with
top atoms, merged into the base, unmerged, and saved and loaded by PEFT is compared with PEFT, or
for top atoms with a float64 reference. Each is right, refused with a reason, or wrong.

    python benchmarks/families.py [FAMILY ...] [--biases]

With ``--biases`` a single adapter trains every bias of the model as well (``bias="all"``, for
which PEFT has room once), and a route holds it beside the base alone.

Prints JSON lines, and at the end a table.
"""

import argparse
import json
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from _tiny_models import FAMILIES, NotBuilt, build, inputs, outputs
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from geodapt.adapters import AdapterBank, Mix, Off, Route, TopAtoms
from geodapt.errors import InputError

RANKS = {"a": 4, "b": 2}
KEEP = 3
MAMBAS = {"mamba", "mamba2", "falcon_h1", "falcon_mamba", "jamba", "bamba", "zamba", "zamba2"}
TOLERANCE = 2e-3
"""Relative to the largest output: random weights amplify rounding in deep and in fast paths."""


class Family:
    """One family's model, its adapters in PEFT's folders, and what PEFT computes with them."""

    def __init__(self, name: str, folder: Path, biases: bool = False) -> None:
        self.name, self.folder, self.biases = name, folder, biases
        self.adapters = ["a"] if biases else [*RANKS]
        self.batch = inputs(build(name))
        self.rows = next(iter(self.batch.values())).shape[0]
        self.targets = [
            path
            for path, module in build(name).named_modules()
            if isinstance(module, nn.Linear | Conv1D)
            and not (name in MAMBAS and path.endswith("out_proj"))  # PEFT refuses these
        ]
        if not self.targets:
            raise NotBuilt("no linear layers")
        self.base = outputs(build(name), self.batch)
        model = get_peft_model(build(name), self._config("a"), adapter_name="a")
        for other in self.adapters[1:]:
            model.add_adapter(other, self._config(other))
        generator = torch.Generator().manual_seed(1)
        for key, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.1
            if "lora_" in key:
                parameter.data = noise
            elif biases and parameter.requires_grad:
                parameter.data += noise
        model.eval().save_pretrained(folder)
        self._compute(model, merged=False)
        active = self.one["a"]
        model.set_adapter("a")
        model.merge_adapter(["a"])
        self.merged = outputs(model, self.batch)
        model.unmerge_adapter()
        self.consistent = _off(active, self.merged) < TOLERANCE
        if not self.consistent:  # PEFT's adapters do not act where a weight is read without a call
            self._compute(model, merged=True)

    def _compute(self, model: Any, merged: bool) -> None:
        """What PEFT's adapters give, active or merged into the base."""

        def given(names: list[str], batch: dict[str, Tensor]) -> list[Tensor]:
            model.base_model.set_adapter(names)
            if not merged:
                return outputs(model, batch)
            model.merge_adapter(names)
            found = outputs(model, batch)
            model.unmerge_adapter()
            return found

        rows = range(self.rows)
        self.one = {key: given([key], self.batch) for key in self.adapters}
        self.alone = {key: [given([key], self.row(i)) for i in rows] for key in self.adapters}
        self.both = given(self.adapters, self.batch)

    def row(self, i: int) -> dict[str, Tensor]:
        """The batch's row by itself."""
        return {key: value[i : i + 1] for key, value in self.batch.items()}

    def _config(self, name: str) -> LoraConfig:
        return LoraConfig(
            r=RANKS[name],
            lora_alpha=2 * RANKS[name],
            target_modules=sorted(self.targets),
            bias="all" if self.biases else "none",
        )


def check(name: str, folder: Path, biases: bool = False) -> dict[str, str]:
    """What every way of using two adapters gives: right, refused: REASON, or wrong: BY HOW MUCH.

    Raises :class:`NotBuilt` when there is no tiny model or PEFT cannot adapt it.
    """
    try:
        family = Family(name, folder, biases)
    except (ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise NotBuilt(f"PEFT: {type(error).__name__}: {str(error)[:100]}") from error
    bank = AdapterBank(build(name))
    try:
        for key in family.adapters:
            bank.load(key, folder / key)
    except InputError as error:
        return {"load": f"refused: {error}"}

    def under(gate: Any) -> Callable[[], list[Tensor]]:
        def run() -> list[Tensor]:
            with bank.use(gate):
                return outputs(bank.model, family.batch)

        return run

    def merged() -> list[Tensor]:
        bank.merge_into_base({"a": 1.0})
        try:
            return outputs(bank.model, family.batch)
        finally:
            bank.unmerge()

    def loaded(source: Path) -> list[Tensor]:
        return outputs(PeftModel.from_pretrained(build(name), source).eval(), family.batch)

    def saved() -> list[Tensor]:
        bank.save("a", folder / "again")
        return loaded(folder / "again")

    route = ["a", None if biases else "b"][: family.rows]
    bare = [outputs(build(name), family.row(i)) for i in range(family.rows)]
    apart = _in_rows(bare)
    wanted_route = _in_rows(
        [family.alone[key][i] if key else bare[i] for i, key in enumerate(route)]
    )
    ways: dict[str, tuple[Callable[[], list[Tensor]], list[Tensor]]] = {
        "off": (under(Off()), family.base),
        "one": (under(Mix({"a": 1.0})), family.one["a"]),
        "mix": (under(Mix(dict.fromkeys(family.adapters, 1.0))), family.both),
        "route": (under(Route(route)), wanted_route),
        "merged": (merged, family.merged),
        "unmerged": (under(Off()), family.base),
        "saved": (saved, loaded(folder / "a")),  # PEFT does not load what it saved of every family
    }
    found = {}
    for way, (run, wanted) in ways.items():
        if way == "route" and _off(family.base, apart) > TOLERANCE:
            continue  # the model itself mixes rows, or pads
        found[way] = _verdict(run, wanted)
    if biases:
        return found
    try:
        verdict = _atoms_verdict(family, torch.float64)
    except RuntimeError:  # the model itself makes float32 of something
        verdict = _atoms_verdict(family, torch.float32)
    if verdict is not None:
        found["atoms"] = verdict
    return found


def _atoms_verdict(family: Family, dtype: torch.dtype) -> str | None:
    """Top atoms beside the reference; none where a rounding decides which terms stay."""
    bank = AdapterBank(build(family.name).to(dtype))
    for key in family.adapters:
        bank.load(key, family.folder / key)
    batch = {k: v.to(dtype) if v.is_floating_point() else v for k, v in family.batch.items()}
    wanted = _atoms(build(family.name).to(dtype), bank, batch)
    shaken = _atoms(jittered(build(family.name).to(dtype)), bank, batch)

    def run() -> list[Tensor]:
        with bank.use(TopAtoms(KEEP, Mix({"a": 1.0, "b": 1.0}))):
            return outputs(bank.model, batch)

    verdict = _verdict(run, wanted)
    stable = family.consistent and _off(shaken, wanted) < TOLERANCE
    return verdict if verdict.startswith("refused") or stable else None


def jittered(model: nn.Module) -> nn.Module:
    """A model whose weights are changed by about ten roundings."""
    for parameter in model.parameters():
        shake = 10 * torch.finfo(parameter.dtype).eps
        parameter.data *= 1 + shake * torch.randn_like(parameter)
    return model


def _verdict(run: Callable[[], list[Tensor]], wanted: list[Tensor]) -> str:
    try:
        difference = _off(run(), wanted)
    except InputError as error:
        return f"refused: {error}"
    except Exception as error:  # a defect, to be shown
        return f"wrong: {type(error).__name__}: {str(error)[:200]}"
    return "right" if difference <= TOLERANCE else f"wrong: off by {difference:.2g}"


def _off(found: list[Tensor], wanted: list[Tensor]) -> float:
    if [tensor.shape for tensor in found] != [tensor.shape for tensor in wanted]:
        return float("inf")
    return max(
        (((a - b).abs().max() / b.abs().max().clamp(min=1e-6)).item())
        for a, b in zip(found, wanted, strict=True)
    )


def _in_rows(parts: list[list[Tensor]]) -> list[Tensor]:
    return [torch.cat(rows) for rows in zip(*parts, strict=False)]


def _atoms(model: nn.Module, bank: AdapterBank, batch: dict[str, Tensor]) -> list[Tensor]:
    """The KEEP largest terms per token of both adapters, layer by layer in float64."""
    with _hooks(model, bank):
        return outputs(model, batch)


@contextmanager
def _hooks(model: nn.Module, bank: AdapterBank) -> Iterator[None]:
    handles = []
    for path, module in model.named_modules():
        terms = [bank[key].factors[path] for key in RANKS if path in bank[key].factors]
        if terms:
            svds = [torch.linalg.svd(f.delta().double(), full_matrices=False) for f in terms]
            parts = [(s, f.rank) for s, f in zip(svds, terms, strict=True)]

            def add(layer: nn.Module, args: Any, y: Tensor, parts: Any = parts) -> Tensor:
                x = args[0].double()
                k = torch.cat([x @ (d[:r, None] * V[:r]).T for (_, d, V), r in parts], -1)
                least = k.abs().topk(min(KEEP, k.shape[-1]), -1).values[..., -1:]
                U = torch.cat([U[:, :r] for (U, _, _), r in parts], 1)
                return y + (k.where(k.abs() >= least, 0) @ U.T).to(y.dtype)

            handles.append(module.register_forward_hook(add))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def table(found: dict[str, dict[str, str]], left_out: Counter[str]) -> str:
    """A Markdown table of counts, and the refused families with their reasons."""
    ways = ["off", "one", "mix", "route", "atoms", "merged", "unmerged", "saved"]
    lines = ["| | right | refused | wrong |", "|---|---|---|---|"]
    for way in ways:
        counts = Counter(
            result.get(way, result.get("load", "-")).split(":")[0] for result in found.values()
        )
        lines.append(f"| {way} | {counts['right']} | {counts['refused']} | {counts['wrong']} |")
    lines += ["", "| refused | families |", "|---|---|"]
    reasons: dict[str, dict[str, None]] = {}
    for family, result in found.items():
        for way, verdict in result.items():
            if verdict.startswith("refused"):
                reasons.setdefault(f"{way}: {verdict[9:]}", {})[family] = None
    lines += [f"| {reason} | {', '.join(families)} |" for reason, families in reasons.items()]
    lines += ["", f"Left out: {sum(left_out.values())} ({dict(left_out)})"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", default=FAMILIES)
    parser.add_argument("--biases", action="store_true")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    found: dict[str, dict[str, str]] = {}
    left_out: Counter[str] = Counter()
    for name in arguments.families:
        with tempfile.TemporaryDirectory() as folder:
            try:
                found[name] = check(name, Path(folder), arguments.biases)
                print(json.dumps({"family": name, **found[name]}), flush=True)
            except NotBuilt as error:
                left_out[str(error).split(":")[0]] += 1
                print(json.dumps({"family": name, "left_out": str(error)}), flush=True)
    print(table(found, left_out))


if __name__ == "__main__":
    main()
