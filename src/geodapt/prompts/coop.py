"""CoOp: learned tokens among those of the class's name, at the first layer.

Source: Zhou et al. 2022, "Learning to prompt for vision-language models", equation 2.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, nn

from geodapt.errors import InputError
from geodapt.prompts.classes import ClassTexts
from geodapt.prompts.host import TextHost
from geodapt.prompts.settings import CoOp
from geodapt.vision.clip import Clip
from geodapt.vision.deep_prompts import Prompts


class CoOpTokens(TextHost):
    """``length`` tokens for all classes, or for each of those that training shows."""

    settings: CoOp

    def __init__(
        self, settings: CoOp, clip: Clip, random: Generator, saved: Mapping[str, Any]
    ) -> None:
        super().__init__(settings)
        self.start = self.first_tokens(clip, random)
        self.random = random
        self.classes: tuple[str, ...] | None = None
        self.text = nn.Parameter(self.start.clone())
        if classes := saved.get("classes"):
            self.remember_classes(tuple(classes))

    def remember_classes(self, names: tuple[str, ...]) -> None:
        if not self.settings.per_class or self.classes == names:
            return
        if self.classes is not None:
            raise InputError(
                "tokens of each class were learned for other classes than these; make a new "
                "learner, or set per_class to false"
            )
        self.classes = names
        values = self.start.expand(len(names), -1, -1).clone()
        if self.settings.words is None:
            values = 0.02 * torch.randn(values.shape, generator=self.random)
        self.text = nn.Parameter(values.to(self.text.device))

    def class_texts(self, clip: Clip, names: tuple[str, ...]) -> ClassTexts:
        if self.settings.per_class and names != self.classes:
            known = "none so far" if self.classes is None else ", ".join(self.classes[:5])
            raise InputError(
                "a learner with tokens of each class (per_class) knows the classes that it was "
                f"shown, in their order ({known}); set per_class to false to ask for any names"
            )
        return super().class_texts(clip, names)

    def prompts(self) -> Prompts:
        return Prompts(text=[self.text])

    def saved(self) -> dict[str, Any]:
        return {"classes": list(self.classes)} if self.classes else {}
