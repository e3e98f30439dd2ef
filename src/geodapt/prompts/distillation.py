"""PromptKD: a student's image tower follows a larger tuned CLIP on pictures without labels.

The class vectors are the teacher's. Source: Li et al. 2024, "PromptKD: unsupervised prompt
distillation for vision-language models", section 3; the projector is that of the authors' code.
"""

from jaxtyping import Float
from torch import Generator, Tensor, nn

from geodapt.prompts.host import Host, check_depth, drawn_linear, drawn_tokens
from geodapt.prompts.settings import PromptKD
from geodapt.vision.clip import Clip
from geodapt.vision.deep_prompts import Prompts
from geodapt.vision.towers import image_tower


class DistilledTokens(Host):
    """Image tokens, and a projector into the teacher's space: linear, batch norm, ReLU, linear."""

    settings: PromptKD

    def __init__(
        self, settings: PromptKD, clip: Clip, random: Generator, width: int, teacher_width: int
    ) -> None:
        super().__init__(settings)
        check_depth(clip, 0, settings.depth)
        self.image = drawn_tokens(
            settings.depth, settings.length, image_tower(clip.model).width, random
        )
        self.projector = nn.Sequential(
            drawn_linear(width, teacher_width, random),
            nn.BatchNorm1d(teacher_width),
            nn.ReLU(),
            drawn_linear(teacher_width, teacher_width, random),
        )

    def prompts(self) -> Prompts:
        return Prompts(image=list(self.image))

    def image_features(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b e"]:
        return self.projector(features)


def distillation_loss(
    student: Float[Tensor, "b c"],
    teacher: Float[Tensor, "b c"],
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """``T^2 KL(softmax(teacher / T) || softmax(student / T)) / (B C)``.

    The mean over rows and classes is the authors'; their weight of 1000 makes up for it.
    """
    divergence = nn.functional.kl_div(
        (student / temperature).log_softmax(-1),
        (teacher / temperature).log_softmax(-1),
        reduction="sum",
        log_target=True,
    )
    return temperature**2 * divergence / student.numel()
