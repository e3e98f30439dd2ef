"""Adapters to merge, and the merged update in full."""

import torch
from peft.utils import merge_utils

from geodapt.adapters import Adapter, Factors
from geodapt.adapters.peft_files.configuration import configure

PATHS = {"layers.0.q": (14, 12), "layers.0.v": (9, 12), "layers.1.q": (14, 12)}


def adapter(seed: int, rank: int, paths=PATHS, dtype=torch.float64, scale=0.5) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    factors = {
        path: Factors(
            torch.randn(rank, width, generator=generator).to(dtype),
            torch.randn(out, rank, generator=generator).to(dtype),
            scale,
        )
        for path, (out, width) in paths.items()
    }
    config = configure(factors)
    config.base_model_name_or_path = "somebody/small"
    return Adapter(factors, config)


WEIGHTS = [0.5, -1.0, 2.0]


def cut(matrix, rank):
    U, d, Vt = torch.linalg.svd(matrix, full_matrices=False)
    return U[:, :rank] @ torch.diag(d[:rank]) @ Vt[:rank]


PEERS = {"ties": merge_utils.ties, "magnitude": merge_utils.magnitude_prune}
