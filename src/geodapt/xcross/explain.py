"""How much every source domain contributed at every layer: mean |beta z| and mean |gamma z|."""

from collections.abc import Mapping

import torch
from torch import Tensor

from geodapt.xcross.model import XCross
from geodapt.xcross.results import Contributions


class ContributionSums:
    """Sums of |terms| over tokens, to be averaged at the end."""

    def __init__(self, model: XCross) -> None:
        self.model = model
        self.sums: dict[int, tuple[Tensor, Tensor]] = {}
        self.tokens = 0

    def add(self, attention_mask: Tensor, rows: slice = slice(None)) -> None:
        """Add the terms that the integrators kept in the last pass, without padding."""
        mask = attention_mask[rows].bool()
        self.tokens += int(mask.sum())
        for layer, integrator in self.model.encoder.integrators.items():
            assert integrator.last_terms is not None, "run the model within encoder.observed()"
            direct, interaction = (
                terms[rows][mask].abs().sum(0).cpu() for terms in integrator.last_terms
            )
            self._add(layer, direct, interaction)

    def merge(self, other: "ContributionSums") -> None:
        """Add the sums of another one."""
        self.tokens += other.tokens
        for layer, (direct, interaction) in other.sums.items():
            self._add(layer, direct, interaction)

    def _add(self, layer: int, direct: Tensor, interaction: Tensor) -> None:
        if layer in self.sums:
            direct, interaction = direct + self.sums[layer][0], interaction + self.sums[layer][1]
        self.sums[layer] = (direct, interaction)

    def means(self) -> Contributions:
        """``direct[l][m][m']``: how strongly stream m read stream m' after layer l, per token."""
        count = max(self.tokens, 1)
        return Contributions(
            streams=list(self.model.encoder.sources),
            layers=list(self.sums),
            direct=[(direct / count).tolist() for direct, _ in self.sums.values()],
            interaction=[(inter / count).tolist() for _, inter in self.sums.values()],
            weights=self.model.encoder.weights.detach().cpu().tolist(),
        )


@torch.inference_mode()
def explain_row(model: XCross, batch: Mapping[str, Tensor]) -> tuple[Tensor, ContributionSums]:
    """The logits of one row of candidates, and the contributions to its best candidate.

    ``batch`` holds ``(1, candidates, tokens)`` tensors, as the collator makes them. Candidates
    are encoded whole here, so that the terms of every token are seen.
    """
    model.eval()
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "shared")}
    with model.encoder.observed():
        logits = model(**inputs).logits[0]
        best = int(logits.argmax())
        contributions = ContributionSums(model)
        mask = batch["attention_mask"].flatten(0, 1)
        row = best if mask.shape[0] > 1 else 0
        contributions.add(mask, slice(row, row + 1))
        return logits, contributions
