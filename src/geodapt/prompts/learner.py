"""A host on a frozen CLIP, with or without an adapter: fit it, ask it for any names, keep it."""

import json
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodapt.checks import texts_of
from geodapt.errors import InputError
from geodapt.files import read_tensors, write_tensors
from geodapt.headers import read_header
from geodapt.models.saved_tensors import load_saved_tensors
from geodapt.prompts.objective import Objective
from geodapt.prompts.prompted import PromptedClip
from geodapt.prompts.rows import LabelledRows, TrainingRows, training_split
from geodapt.prompts.saving import TENSORS, read_learner, write_learner
from geodapt.prompts.settings import PlainClip
from geodapt.training import Fit, TrainingSettings, fit
from geodapt.vision.clip import Clip

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class ClassVectors:
    """Classes as they are compared with pictures: what serves without a text tower."""

    names: tuple[str, ...]
    vectors: Float[Tensor, "classes d"]

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.names):
            raise InputError(
                f"{len(self.names)} classes come with vectors of shape "
                f"{tuple(self.vectors.shape)}; expected one each"
            )

    def save(self, path: Path | str) -> None:
        """Write them as one safetensors file, with the names in its metadata."""
        write_tensors(path, {"vectors": self.vectors}, {"names": json.dumps(self.names)})

    @classmethod
    def load(cls, path: Path | str) -> "ClassVectors":
        """Read what :meth:`save` wrote."""
        vectors = read_tensors(path).get("vectors")
        try:
            names = json.loads(read_header(Path(path)).metadata.get("names", ""))
        except ValueError:
            names = None
        whole = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if vectors is None or vectors.dim() != 2 or not whole or len(names) != len(vectors):
            raise InputError(f"'{path}' holds no vectors of classes with a name for each")
        return cls(tuple(names), vectors)


Asked = Sequence[str] | ClassVectors


class PromptLearner(PromptedClip):
    """Learned tokens, and perhaps an adapter, beside a CLIP that stays as it is.

    >>> clip = load_clip("openai/clip-vit-base-patch16")  # doctest: +SKIP
    >>> learner = PromptLearner(clip, MaPLe(length=2, depth=9))  # doctest: +SKIP
    >>> learner.fit(pictures.few_shot(16, seed=1))  # doctest: +SKIP
    >>> learner.predict(images, ["tabby cat", "lynx"])  # doctest: +SKIP

    Learners share a CLIP without disturbing each other, also in several threads. ``teacher`` is
    PromptKD's: a learner, or a CLIP as it is. What is random at the start follows from ``seed``.

    Raises :class:`InputError` for a depth over the number of layers, for a model that is no CLIP or
    SigLIP, and for a teacher that is missing or not asked for.
    """

    def loss(
        self, images: "Sequence[Image]", labels: Sequence[int], names: Sequence[str]
    ) -> dict[str, Tensor]:
        """The weighted terms of the loss of some pictures, with gradients; their sum trains."""
        wrong = [label for label in labels if not 0 <= label < len(names)]
        if wrong:
            raise InputError(
                f"a picture has the label {wrong[0]}, but there are {len(names)} names"
            )
        objective = Objective(self, tuple(names), self.host.settings.training.epochs or 1)
        teacher = None if self.teacher is None else self.teacher.clip.pixels(images)
        target = torch.tensor(list(labels), device=self.clip.model.device)
        return objective.terms(self.clip.pixels(images), target, teacher)[0]

    # Without gradients

    @torch.no_grad()
    def embed(self, images: "Sequence[Image]") -> Float[Tensor, "n d"]:
        """Unit vectors of pictures, on the CPU, in the space of :meth:`class_vectors`."""
        return nn.functional.normalize(self.features_of(images), dim=-1).cpu()

    @torch.no_grad()
    def logits(self, images: "Sequence[Image]", names: Asked) -> Float[Tensor, "n classes"]:
        """What a softmax over the classes is taken of, on the CPU.

        ``names`` are any names, or :class:`ClassVectors` that :meth:`export` gave. Raises
        :class:`InputError` for no pictures, no names and a picture that is not right.
        """
        features = self.features_of(images)
        vectors = names.vectors if isinstance(names, ClassVectors) else self.class_vectors(names)
        if vectors.shape[1] != features.shape[1]:
            raise InputError(
                f"the vectors of the classes have {vectors.shape[1]} numbers, those of pictures "
                f"{features.shape[1]}: they are another model's"
            )
        return self.logits_of(features, vectors.to(features.device)).cpu()

    def predict(self, images: "Sequence[Image]", names: Asked) -> list[str]:
        """The name that fits each picture best."""
        asked = names.names if isinstance(names, ClassVectors) else texts_of(names, "class names")
        return [asked[number] for number in self.logits(images, names).argmax(-1).tolist()]

    def export(self, names: Sequence[str], path: Path | str | None = None) -> ClassVectors:
        """Class vectors that serve without the text tower, written to a file if one is given."""
        vectors = self.class_vectors(names).cpu()
        made = ClassVectors(tuple(names), vectors)
        if path is not None:
            made.save(path)
        return made

    def fit(
        self,
        pictures: LabelledRows,
        training: TrainingSettings | None = None,
        *,
        work: Path | None = None,
        seed: int = 0,
        label: str = "",
        **watched: Any,
    ) -> Fit:
        """Train on the split ``train``, in place; ``training`` overrides the host's settings.

        ``work`` takes the checkpoints: where it holds one, training goes on from there and ends
        with the same weights. ``watched`` goes to :func:`geodapt.training.fit`.

        Raises :class:`InputError` as :func:`~geodapt.prompts.rows.training_split` does, and where
        nothing trains.
        """
        rows, labels = training_split(pictures)
        settings = training or self.host.settings.training
        if (epochs := settings.epochs) is None:
            raise InputError("a prompt learner trains by epochs; set training.epochs")
        if settings.batch_size > len(labels):
            settings = settings.model_copy(update={"batch_size": len(labels)})
        if self.teacher is not None and settings.batch_size < 2:
            raise InputError("PromptKD normalises over a batch; give training.batch_size 2 or more")
        names = tuple(pictures.names)
        if torch.accelerator.is_available():
            self.clip.model.to(torch.accelerator.current_accelerator())
            self.to(self.clip.model.device)
        self.host.remember_classes(names)
        if self.teacher is None:
            self.class_texts(names)  # refused before anything is computed
        self._start_adapter(rows, labels, names, seed)
        self.classes = names
        objective = Objective(self, names, epochs)
        if not any(parameter.requires_grad for parameter in objective.parameters()):
            raise InputError(
                f"'{self.host.settings.kind}' has nothing to train; give an adapter, or take "
                "another host"
            )
        teacher = None if self.teacher is None else self.teacher.clip
        batches = TrainingRows(rows, labels, self.clip, self.host.settings, seed, teacher)
        with nullcontext(work) if work else tempfile.TemporaryDirectory() as folder:
            done = fit(
                objective,
                batches,
                settings,
                work=Path(folder),
                collate=batches.collate,
                groups=self._groups(settings),
                label=label or f"training {self.host.settings.kind}",
                seed=seed,
                after_epoch=objective.after_epoch,
                **watched,
            )
        objective.finish()
        self.eval()
        return done

    def _groups(self, settings: TrainingSettings) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = [{"params": list(self.host.parameters())}]
        if self.adapter is not None:
            rate = settings.learning_rate * self.host.settings.adapter_rate
            groups.append({"params": list(self.adapter.parameters()), "lr": rate})
        return groups

    def _start_adapter(self, rows: Any, labels: Any, names: tuple[str, ...], seed: int) -> None:
        if self.adapter is None or self.adapter_started:
            return
        if self.teacher is not None:
            images, texts = (
                self.teacher.features_of(rows["image"]),
                self.teacher.class_vectors(names),
            )
        else:
            plain = PromptedClip(self.clip, PlainClip(template=self.host.settings.whole_template))
            images, texts = plain.features_of(rows["image"]), plain.class_vectors(names)
        shown = None if self.teacher is not None else torch.from_numpy(labels).to(images.device)
        self.adapter.start(images, texts, seed, shown, self.scale)
        self.adapter.to(self.clip.model.device)
        self.adapter_started = True

    def save(self, folder: Path | str) -> None:
        """Write ``prompts.json`` and ``prompts.safetensors``; a teacher's go into ``teacher``.

        Saved is what is learned; no weight of the CLIP is, and no name of a class stands in the
        weights, so that it loads for any names.
        """
        write_learner(self, folder)

    @classmethod
    def load(cls, folder: Path | str, clip: Clip | None = None) -> "PromptLearner":
        """A learner that :meth:`save` wrote, on its own base, which is loaded unless it is given.

        Raises :class:`InputError` for a folder that is none, for tensors that do not fit, and for
        a base with other weights than it was learned on.
        """
        read, folder = read_learner(folder), Path(folder)
        clip = clip or read.base.load()
        read.base.check(clip, folder)
        teacher = cls.load(folder / "teacher") if read.teacher else None
        adapter = None if read.adapter is None else read.adapter.make()
        made = cls(clip, read.host, adapter, teacher=teacher, saved=read.saved)
        made.adapter_started = adapter is not None
        made.classes = tuple(read.classes)
        load_saved_tensors(made, folder / TENSORS)
        return made.eval()
