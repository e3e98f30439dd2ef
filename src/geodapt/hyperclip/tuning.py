"""What trains by each method, and one forward pass of it."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from geodapt.adapters import AdapterBank, Mix, Off
from geodapt.hyperclip.attachment import Scaling, scale
from geodapt.hyperclip.losses import pixel_loss
from geodapt.hyperclip.model import OpenSegmenter
from geodapt.hyperclip.page_classes import VOID
from geodapt.hyperclip.projections import projections
from geodapt.hyperclip.settings import SCALED, HyperClipSettings

LORA = "lora"


class SegmentationTuner(nn.Module):
    """A segmenter whose head trains, and of whose CLIP what a method lets train."""

    def __init__(self, segmenter: OpenSegmenter, method: str, settings: HyperClipSettings) -> None:
        super().__init__()
        self.segmenter, self.settings = segmenter, settings
        self.scaling: Scaling | None = None
        self.bank: AdapterBank | None = None
        model = segmenter.clip.model.requires_grad_(False)
        if method == "full":
            model.requires_grad_(True)
        elif method == "query-value":  # as CAT-Seg
            for projection in projections(model):
                if projection.matrix in {"query", "value"}:
                    projection.module.weight.requires_grad_(True)
        elif method == LORA:
            rank = settings.lora_rank
            self.bank = AdapterBank(model)
            self.bank.create(LORA, rank, 2 * rank, ["q_proj", "k_proj", "v_proj"])
            self.bank.train_only(LORA)
            self.bank.set(Mix({LORA: 1.0}))
        elif method.startswith(SCALED):
            block = int(method.removeprefix(SCALED))
            self.scaling = scale(model, settings.scaling.model_copy(update={"block": block}))

    def train(self, mode: bool = True) -> "SegmentationTuner":
        """The CLIP stays in eval mode: its dropout would blur what is tuned."""
        super().train(mode)
        self.segmenter.clip.model.eval()
        return self

    def forward(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        masks: Int[Tensor, "images height width"],
        **tokens: Tensor,
    ) -> dict[str, Tensor]:
        """The loss of a batch of :class:`~geodapt.hyperclip.page_classes.PageBatches`."""
        texts = self.segmenter.clip.text_vectors(tokens)
        logits = self.segmenter(pixels, texts)
        return {"loss": pixel_loss(logits, masks, VOID, self.settings.ignored)}

    def clip_parameters(self) -> list[nn.Parameter]:
        """What trains of the CLIP, or beside it in its place."""
        head = {id(parameter) for parameter in self.segmenter.head.parameters()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in head]

    def groups(self, method: str) -> list[dict[str, Any]]:
        """Optimizer groups: the head, and the CLIP at its own step size."""
        rate = self.settings.learning_rates.get(method, self.settings.training.learning_rate)
        head = [p for p in self.segmenter.head.parameters() if p.requires_grad]
        return [{"params": head}, {"params": self.clip_parameters(), "lr": rate}]

    @torch.no_grad()
    def merge(self) -> None:
        """Write what was tuned into the CLIP's own weights, which cost what they did before."""
        if self.scaling is not None:
            self.scaling.fold()
        if self.bank is not None:
            self.bank.set(Off())
            self.bank.merge_into_base({LORA: 1.0})
