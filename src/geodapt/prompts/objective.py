"""The loss of a host on a batch, with or without an adapter, as the training loop calls it."""

from typing import Any

import torch
from torch import Tensor, nn

from geodapt.prompts.distillation import distillation_loss
from geodapt.prompts.prompted import PromptedClip
from geodapt.prompts.promptsrc import average_of, consistency, frozen_texts
from geodapt.prompts.settings import PromptKD, PromptSRC
from geodapt.vision.templates import SIXTY
from geodapt.vision.text import pooled


class Objective(nn.Module):
    """What trains: the host and the adapter. The frozen CLIP is no part of its state.

    Class texts that nothing trains (plain CLIP's, a teacher's) are computed once.
    """

    resumes_buffers = True

    def __init__(self, learner: PromptedClip, names: tuple[str, ...], epochs: int) -> None:
        super().__init__()
        self.host, self.adapter = learner.host, learner.adapter
        self._learner = (learner,)  # a tuple, so that it is not registered twice
        self.names, self.epochs = names, epochs
        settings = learner.host.settings
        self.average = None
        if isinstance(settings, PromptSRC):
            trained = [p for p in self.parameters() if p.requires_grad]
            self.average = average_of(settings, trained, epochs)
        self._texts: Tensor | None = None
        self._frozen: Tensor | None = None

    @property
    def learner(self) -> PromptedClip:
        return self._learner[0]

    def forward(
        self,
        pixels: dict[str, Tensor],
        labels: Tensor | None = None,
        teacher_pixels: dict[str, Tensor] | None = None,
    ) -> dict[str, Any]:
        """``loss``, and ``logits`` (rows, classes)."""
        terms, logits = self.terms(pixels, labels, teacher_pixels)
        return {"loss": torch.stack([*terms.values()]).sum(), "logits": logits}

    def terms(
        self,
        pixels: dict[str, Tensor],
        labels: Tensor | None = None,
        teacher_pixels: dict[str, Tensor] | None = None,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The weighted terms of the loss by name, and the logits."""
        learner, settings = self.learner, self.host.settings
        scale = learner.scale
        images = learner.image_features(pixels)
        texts = self._class_features()
        teacher = None
        if learner.teacher is not None:
            teacher = self._teacher_logits(teacher_pixels or pixels)
            labels = None  # they are not looked at: what is distilled is the teacher
        terms: dict[str, Tensor] = {}
        if learner.adapter is not None:
            refined = learner.adapter.refine(texts)
            logits = learner.adapter.logits(images, refined, scale)
            terms.update(learner.adapter.losses(images, texts, refined, labels, teacher, scale))
        else:
            logits = learner.scaled_cosines(images, texts)
            if teacher is None:
                assert labels is not None
                terms["classification"] = nn.functional.cross_entropy(logits, labels)
            else:
                assert isinstance(settings, PromptKD)
                divergence = distillation_loss(logits, teacher, settings.temperature)
                terms["distillation"] = settings.weight * divergence
        if isinstance(settings, PromptSRC):
            terms.update(self._consistency(settings, pixels, images, texts, scale))
        return terms, logits

    def after_epoch(self, epoch: int) -> None:
        """What hosts and adapters do between epochs."""
        if self.average is not None:
            self.average.add(epoch)
        if self.learner.adapter is not None:
            self.learner.adapter.end_epoch(epoch, self.epochs)

    def finish(self) -> None:
        """What a host does after the last epoch."""
        if self.average is not None:
            self.average.apply_average()

    def _class_features(self) -> Tensor:
        if self.learner.texts_train:
            return self.learner.class_features(self.names)
        if self._texts is None:
            with torch.no_grad():
                self._texts = self.learner.class_features(self.names)
        return self._texts

    @torch.no_grad()
    def _teacher_logits(self, pixels: dict[str, Tensor]) -> Tensor:
        teacher = self.learner.teacher
        assert teacher is not None
        return teacher.logits_of(teacher.image_features(pixels), teacher.class_vectors(self.names))

    def _consistency(
        self,
        settings: PromptSRC,
        pixels: dict[str, Tensor],
        images: Tensor,
        texts: Tensor,
        scale: Tensor,
    ) -> dict[str, Tensor]:
        clip = self.learner.clip
        if self._frozen is None:
            templates = settings.frozen_templates or SIXTY
            self._frozen = frozen_texts(clip, self.names, templates)
        unit = nn.functional.normalize
        with torch.no_grad():
            frozen = unit(pooled(clip.model.get_image_features(**pixels)).float(), dim=-1)
        return consistency(
            settings, unit(images, dim=-1), unit(texts, dim=-1), frozen, self._frozen, scale
        )
