"""A frozen CLIP with a host's learned tokens, and perhaps an adapter: vectors and logits."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodapt.checks import texts_of
from geodapt.errors import InputError
from geodapt.progress import track
from geodapt.prompts.adapter import FeatureAdapter
from geodapt.prompts.classes import ClassTexts
from geodapt.prompts.coop import CoOpTokens
from geodapt.prompts.distillation import DistilledTokens
from geodapt.prompts.host import Host
from geodapt.prompts.maple import CoupledTokens
from geodapt.prompts.promptsrc import IndependentTokens
from geodapt.prompts.rows import pictures_at
from geodapt.prompts.settings import CoOp, HostSettings, MaPLe, PlainClip, PromptKD, PromptSRC
from geodapt.vision.clip import AT_ONCE, Clip
from geodapt.vision.deep_prompts import Prompts, prompts_on
from geodapt.vision.images import require_pictures
from geodapt.vision.text import pooled
from geodapt.vision.towers import image_tower, text_tower

if TYPE_CHECKING:
    from PIL.Image import Image


def build_host(
    settings: HostSettings,
    clip: Clip,
    seed: int,
    saved: Mapping[str, Any],
    teacher_width: int = 0,
) -> Host:
    """What a host learns, before training; what is random follows from the seed.

    Raises :class:`InputError` for a model that is no CLIP or SigLIP, and for a depth over the
    number of layers.
    """
    text_tower(clip.model)
    if image_tower(clip.model).flexible:
        raise InputError(
            f"a {type(clip.model).__name__} with patches of flexible number takes no image "
            "tokens; take a CLIP, or a SigLIP of fixed size"
        )
    random = torch.Generator().manual_seed(seed)
    match settings:
        case CoOp():
            return CoOpTokens(settings, clip, random, saved)
        case MaPLe():
            return CoupledTokens(settings, clip, random)
        case PromptSRC():
            return IndependentTokens(settings, clip, random)
        case PromptKD():
            width = ClassTexts(clip, ["a"], "{}").features(clip).shape[-1]
            return DistilledTokens(settings, clip, random, width, teacher_width)
        case PlainClip():
            return Host(settings)
    raise InputError(f"a {type(settings).__name__} is no host; give MaPLe(), PromptSRC(), ...")


KEPT = 8
"""Lists of classes whose tokens and vectors are kept."""


class PromptedClip(nn.Module):
    """The CLIP stays as it is and is no part of this module: its state is what is learned.

    Raises :class:`InputError` for a depth over the number of layers, for a model that is no CLIP or
    SigLIP, and for a teacher that is missing or not asked for.
    """

    def __init__(
        self,
        clip: Clip,
        host: HostSettings,
        adapter: FeatureAdapter | None = None,
        *,
        teacher: "PromptedClip | Clip | None" = None,
        seed: int = 0,
        saved: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.clip = clip
        if isinstance(host, PromptKD) != (teacher is not None):
            raise InputError(
                f"'{host.kind}' learns from no teacher; leave it out"
                if teacher is not None
                else "PromptKD needs a teacher; give a larger learner or CLIP as teacher="
            )
        if isinstance(teacher, Clip):
            teacher = PromptedClip(teacher, PlainClip())
        self._teacher = (teacher,)  # a tuple, so that it is no part of this module
        clip.scale  # noqa: B018  refused here, where it has none
        width = 0 if teacher is None else teacher.width
        self.host = build_host(host, clip, seed, saved or {}, width)
        if adapter is not None and not isinstance(adapter, nn.Module):
            raise InputError(f"an adapter is an nn.Module, got a {type(adapter).__name__}")
        self.adapter: Any = adapter
        self.adapter_started = False
        self.classes: tuple[str, ...] = ()
        self._texts: dict[tuple[str, ...], ClassTexts] = {}
        self._vectors: dict[tuple, Tensor] = {}
        self.to(clip.model.device)
        self.eval()

    @property
    def teacher(self) -> "PromptedClip | None":
        """PromptKD's teacher."""
        return self._teacher[0]

    @property
    def scale(self) -> Float[Tensor, ""]:
        """What cosines are multiplied by: the frozen CLIP's."""
        return self.clip.scale.float()

    @property
    def width(self) -> int:
        """Of the space that pictures and classes are compared in."""
        return self.class_vectors(self.classes or ("a",)).shape[-1]

    @property
    def texts_train(self) -> bool:
        """Whether class texts depend on something that is learned, apart from an adapter."""
        return self.host.count > 0

    # With gradients

    def image_features(self, pixels: dict[str, Tensor]) -> Float[Tensor, "n d"]:
        """Vectors of :meth:`Clip.pixels`, not scaled to length 1."""
        model = self.clip.model
        with prompts_on(model, Prompts(image=self.host.prompts().image)):
            features = pooled(model.get_image_features(**pixels)).float()
        return self.host.image_features(features)

    def class_features(self, names: Sequence[str]) -> Float[Tensor, "classes d"]:
        """Vectors of classes before an adapter, not scaled to length 1; PromptKD's: its teacher's.

        Raises :class:`InputError` as :class:`geodapt.prompts.classes.ClassTexts` does.
        """
        if self.teacher is not None:
            return self.teacher.class_vectors(names)
        texts = self.class_texts(names)
        return texts.features(self.clip, self.host.prompts(), self.host.settings.classes_at_once)

    def class_texts(self, names: Sequence[str]) -> ClassTexts:
        """The tokens of classes, made once for a list of names."""
        key = tuple(texts_of(names, "class names"))
        texts = self._texts.get(key)
        if texts is None or texts.ids.device != self.clip.model.device:
            if len(self._texts) >= KEPT:
                self._texts.clear()
            texts = self._texts[key] = self.host.class_texts(self.clip, key)
        return texts

    def scaled_cosines(
        self, images: Float[Tensor, "n d"], texts: Float[Tensor, "classes d"]
    ) -> Float[Tensor, "n classes"]:
        """``scale * cosine``; of a SigLIP too, whose bias no softmax over classes sees."""
        unit = nn.functional.normalize
        return self.scale.to(images.device) * unit(images, dim=-1) @ unit(texts, dim=-1).T

    def logits_of(
        self, images: Float[Tensor, "n d"], vectors: Float[Tensor, "classes d"]
    ) -> Float[Tensor, "n classes"]:
        """The logits of :meth:`image_features` and :meth:`class_vectors`."""
        if self.adapter is not None:
            return self.adapter.logits(images, vectors, self.scale.to(images.device))
        return self.scaled_cosines(images, vectors)

    def _versions(self) -> tuple:
        """What changes whenever something that is learned, here or in the teacher, does."""
        own = tuple((id(value), value._version) for value in (*self.parameters(), *self.buffers()))
        return own if self.teacher is None else (own, self.teacher._versions())

    @torch.no_grad()
    def class_vectors(self, names: Sequence[str]) -> Float[Tensor, "classes d"]:
        """Classes as pictures are compared with them; computed once for a list of names."""
        key = (tuple(texts_of(names, "class names")), self.clip.model.device, self._versions())
        if (found := self._vectors.get(key)) is None:
            found = self.class_features(names)
            if self.adapter is not None:
                found = self.adapter.refine(found)
            if len(self._vectors) >= KEPT:
                self._vectors.clear()
            self._vectors[key] = found
        return found

    @torch.no_grad()
    def features_of(self, images: "Sequence[Image]") -> Float[Tensor, "n d"]:
        """As :meth:`image_features`, of pictures, without gradients, in pieces."""
        require_pictures(images)
        parts = []
        for start in track(range(0, len(images), AT_ONCE), "looking at pictures"):
            rows = range(start, min(start + AT_ONCE, len(images)))
            parts.append(self.image_features(self.clip.pixels(pictures_at(images, rows))))
        return torch.cat(parts)
