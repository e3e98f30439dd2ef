"""The scoring head that every method of the comparison shares.

``h_pooled = GELU(W_p h[CLS] + b_p)``, ``score = V_c^T h_pooled + b_c`` (X-Cross, stage 5).
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodapt.files import write_tensors
from geodapt.models.saved_tensors import load_saved_tensors

FILE = "head.safetensors"


class Head(nn.Module):
    """Pooler and scores: one score per prompt for ranking, one per label for classification."""

    def __init__(self, width: int, pooled: int, outputs: int = 1) -> None:
        super().__init__()
        self.pool = nn.Linear(width, pooled)
        self.score = nn.Linear(pooled, outputs)

    def forward(self, h: Float[Tensor, "rows d"]) -> Float[Tensor, "rows outputs"]:
        """Scores in float32 of the summary tokens ``h``."""
        return self.score(nn.functional.gelu(self.pool(h.to(self.pool.weight.dtype)))).float()

    def save(self, folder: Path) -> None:
        """Write ``head.safetensors`` into a folder."""
        write_tensors(folder / FILE, self.state_dict())

    def load(self, folder: Path) -> "Head":
        """Read it back; raises :class:`InputError` when its shape is another."""
        load_saved_tensors(self, folder / FILE)
        return self

    def average(self, heads: list["Head"]) -> "Head":
        """Set this head to the mean of other heads, which must have started from the same
        weights."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(torch.stack([head.get_parameter(name) for head in heads]).mean(0))
        return self
