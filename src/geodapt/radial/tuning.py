"""One forward pass of radial tuning: chains in, the total loss out."""

import copy
from contextlib import nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from geodapt.adapters import Off
from geodapt.radial.losses import Loss, anchoring_loss, cone_loss, radial_loss
from geodapt.radial.model import RadialModel
from geodapt.radial.roots import nearest_root
from geodapt.radial.settings import LossSettings


class Tuner(nn.Module):
    """A :class:`RadialModel` whose text side trains, beside the pretrained one that anchors it.

    ``c`` is that of the space of curvature ``-c`` in which angles are measured; 0 is flat.
    """

    def __init__(
        self, model: RadialModel, settings: LossSettings, loss: Loss = "radial", c: float = 0.0
    ) -> None:
        super().__init__()
        self.model, self.settings, self.loss, self.c = model, settings, loss, c
        # The pretrained text side: the base with its adapter off, or a copy that shares all that
        # stays frozen. In a list, so that it is not registered as a submodule.
        frozen = {id(p): p for p in model.encoder.parameters() if not p.requires_grad}
        self._pretrained = [model.encoder if model.bank else copy.deepcopy(model.encoder, frozen)]
        self._pretrained[0].eval()

    def forward(
        self, triples: Int[Tensor, "triples 4"], **tokens: Int[Tensor, "texts tokens"]
    ) -> dict[str, Float[Tensor, ""]]:
        """The total loss of a batch of :class:`geodapt.radial.collator.ChainCollator`."""
        settings = self.settings
        vectors = self.model.encoder(**tokens)
        roots = self.model.roots(vectors[0])
        general, entailed, contradicting, specific = vectors[triples].unbind(1)
        root = roots[nearest_root(roots, specific)]
        if self.loss == "radial":
            loss = radial_loss(general, entailed, contradicting, root, self.c)
        else:
            loss = cone_loss(general, entailed, root, settings.eps, self.c)
        total = settings.weight * loss
        if settings.anchoring:
            total = total + settings.anchoring * anchoring_loss(
                vectors[1:], self._anchors(tokens)[1:]
            )
        return {"loss": total}

    @torch.no_grad()
    def _anchors(self, tokens: dict[str, Tensor]) -> Tensor:
        bank = self.model.bank
        with bank.use(Off()) if bank else nullcontext():
            return self._pretrained[0](**tokens)
