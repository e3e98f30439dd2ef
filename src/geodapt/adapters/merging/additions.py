"""Biases and rows of tokens in a merge: their weighted sums, whatever the method.

They are not matrices, so no method trims or cuts them.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.peft_files.additions import Addition, TokenRows
from geodapt.adapters.peft_files.kinds import LayerKind
from geodapt.errors import InputError


def summed_additions(
    adapters: Sequence[Adapter], shares: Sequence[float], kinds: Mapping[str, LayerKind]
) -> dict[str, Addition]:
    """What a merged adapter adds beside its factors, whose scale is 1.

    ``shares`` are the adapters' weights. What stands in place of the base's own moves from there by
    the weighted sum of the differences, for which the base's own must be known: from a bank that
    held the adapters. Where all adapters bring it and the weights sum to 1, it cancels.

    Raises :class:`InputError` where the base's own is needed and not known, and for biases of
    ``lora_B`` beside factors for which PEFT's files have no such biases.
    """
    found: dict[str, Addition] = {}
    for path in dict.fromkeys(path for adapter in adapters for path in adapter.additions):
        each = [adapter.additions.get(path, Addition()) for adapter in adapters]
        known = [a.base_bias for a in each if a.base_bias is not None]
        base = known[0] if known else None
        tokens = _tokens(path, each, shares)
        found[path] = Addition(
            bias=_moved(f"the bias of {path}", [a.bias for a in each], base, shares),
            lora_bias=_lora_bias(path, adapters, shares),
            tokens=tokens[0] if tokens else None,
            base_bias=base,
            base_rows=tokens[1] if tokens else None,
        )
    other = next(
        (path for path, kind in kinds.items() if kind.name in ("embedding", "parameter")), None
    )
    if other is not None and any(each.lora_bias is not None for each in found.values()):
        raise InputError(
            f"an adapter brings biases of lora_B (lora_bias) and one changes {other}, for which "
            "PEFT has none, so that no file holds both; mix or route them, or merge others"
        )
    return found


def _moved(
    what: str,
    values: Sequence[Tensor | None],
    base: Tensor | None,
    shares: Sequence[float],
) -> Tensor | None:
    here = [
        (value, share) for value, share in zip(values, shares, strict=True) if value is not None
    ]
    if not here:
        return None
    wide = torch.float64
    total = sum(share * value.to(wide) for value, share in here)
    rest = 1 - sum(share for _, share in here)
    if abs(rest) > 1e-9:
        if base is None:
            raise InputError(
                f"{what} stands in place of the base's, which is not known here, and the weights "
                "of the adapters that bring it do not sum to 1; load the adapters into a bank on "
                "their base and merge bank[name], or give weights that do"
            )
        total = total + rest * base.to(wide)
    assert isinstance(total, Tensor)
    most = max((value.dtype for value, _ in here), key=lambda dtype: dtype.itemsize)
    return total.to(torch.promote_types(most, torch.float32))


def _lora_bias(path: str, adapters: Sequence[Adapter], shares: Sequence[float]) -> Tensor | None:
    total: Tensor | None = None
    for adapter, share in zip(adapters, shares, strict=True):
        bias = adapter.additions.get(path, Addition()).lora_bias
        if bias is not None:
            wide = bias.to(torch.promote_types(bias.dtype, torch.float32))
            part = share * adapter.factors[path].scaled(wide)
            total = part if total is None else total + part
    return total


def _tokens(
    path: str, each: Sequence[Addition], shares: Sequence[float]
) -> tuple[TokenRows, Tensor | None] | None:
    """The merged rows of all adapters' tokens, and the base's own where they are all known."""
    rows: dict[int, list[Tensor | None]] = {}
    bases: dict[int, Tensor] = {}
    for place, addition in enumerate(each):
        if addition.tokens is None:
            continue
        for i, token in enumerate(addition.tokens.ids.tolist()):
            rows.setdefault(token, [None] * len(each))[place] = addition.tokens.rows[i]
            if addition.base_rows is not None:
                bases[token] = addition.base_rows[i]
    if not rows:
        return None
    moved = [
        _moved(f"the row of token {token} of {path}", values, bases.get(token), shares)
        for token, values in rows.items()
    ]
    merged = torch.stack([row for row in moved if row is not None])
    known = [bases[token] for token in rows if token in bases]
    base = torch.stack(known) if len(known) == len(rows) else None
    return TokenRows(torch.tensor(list(rows), device="cpu"), merged), base
