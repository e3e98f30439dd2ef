"""What the layers of a model see: inputs for choosing rank-one terms."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodapt.adapters.base_model.naming import localise
from geodapt.adapters.base_model.sites import is_linear
from geodapt.progress import track


@torch.no_grad()
def calibrate(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    paths: Iterable[str],
    tokens: int = 1024,
) -> dict[str, Float[Tensor, "tokens in_features"]]:
    """Inputs of layers while a model reads batches, for ``merge(..., method="atoms")``.

    ``paths`` are an adapter's layer paths. Of all tokens, ``tokens`` are kept a layer, each with
    the same chance (reservoir sampling); where the batch has an attention mask, padding does not
    count. On the CPU in float32. Only linear layers have inputs of that sort: embeddings,
    convolutions and parameters are left out.
    """
    paths = list(paths)
    found: dict[str, list[Tensor]] = {path: [] for path in paths}
    seen = dict.fromkeys(paths, 0)
    generator = torch.Generator().manual_seed(0)
    mask: Tensor | None = None

    def keep(path: str, x: Tensor) -> None:
        rows = x.detach()
        if mask is not None and rows.shape[:-1] == mask.shape:
            rows = rows[mask]
        for row in rows.reshape(-1, rows.shape[-1]).float().cpu():
            seen[path] += 1
            if len(found[path]) < tokens:
                found[path].append(row)
            else:
                place = int(torch.randint(seen[path], (1,), generator=generator))
                if place < tokens:
                    found[path][place] = row

    layers = dict(model.named_modules())
    handles = [
        model.get_submodule(here).register_forward_pre_hook(
            lambda module, args, path=path: keep(path, args[0])
        )
        for path, here in localise(model, paths).items()
        if is_linear(layers.get(here))
    ]
    try:
        for batch in track(batches, "calibration"):
            mask = batch.get("attention_mask")
            mask = mask.bool() if mask is not None else None
            model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return {path: torch.stack(rows) for path, rows in found.items() if rows}
