"""What a prompt learner knows of an adapter: a module between features and classes.

A learner embeds; an adapter works on what comes out, so that one fits every learner. It replaces
the learner's term of classification (cross entropy, or the divergence from a teacher); the
learner's own regularisers stay, on the texts as they were before :meth:`FeatureAdapter.refine`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from geodapt.errors import InputError
from geodapt.files import write_json, write_tensors
from geodapt.models.saved_tensors import load_saved_tensors
from geodapt.registration import named_object
from geodapt.settings import Settings

FEATURE_ADAPTERS = {"lathadapter": "geodapt.lathadapter.adapter:LatHAdapter"}
"""Kind, as a saved learner names it -> module and class. One line registers one.

The class is called with the width of the space and the adapter's options as keywords.
"""


@runtime_checkable
class FeatureAdapter(Protocol):
    """An ``nn.Module`` that refines class texts, adds losses and makes logits.

    Features come **as the towers give them, not scaled to unit length**: how long they are is the
    adapter's to decide. ``d`` is the width of the shared space; where a teacher's class vectors
    are learned against (PromptKD), the teacher's. ``scale`` is the inverse of the temperature.
    """

    kind: str
    """Its key in :data:`FEATURE_ADAPTERS`."""

    def configuration(self) -> dict[str, Any]:
        """What :meth:`from_configuration` needs, as JSON, for the state that it is in now."""
        ...

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """An adapter whose ``state_dict`` has the names and shapes of the one that was saved."""
        ...

    def start(
        self,
        images: Float[Tensor, "n d"],
        texts: Float[Tensor, "c d"],
        seed: int,
        labels: Int[Tensor, " n"] | None = None,
        scale: Float[Tensor, ""] | None = None,
    ) -> None:
        """Called once before training, with the frozen features of all training rows and classes.

        ``labels`` are those of the rows; none where a teacher is learned from.

        Parameters and buffers have their final shapes from here on. The same arguments give the
        same values: a resumed training calls it again, then loads its checkpoint.
        """
        ...

    def end_epoch(self, epoch: int, epochs: int) -> None:
        """Called after each epoch, counted from 0. What it changes stands in the state dict."""
        ...

    def refine(self, texts: Float[Tensor, "c d"]) -> Float[Tensor, "c d"]:
        """The class vectors that pictures are compared with."""
        ...

    def losses(
        self,
        images: Float[Tensor, "b d"],
        texts: Float[Tensor, "c d"],
        refined: Float[Tensor, "c d"],
        labels: Int[Tensor, " b"] | None,
        teacher: Float[Tensor, "b c"] | None,
        scale: Float[Tensor, ""],
    ) -> dict[str, Tensor]:
        """Named terms, weighted already: their sum is what is added.

        Either ``labels`` are given, or ``teacher``: its logits, whose softmax is the target.
        """
        ...

    def logits(
        self,
        images: Float[Tensor, "b d"],
        refined: Float[Tensor, "c d"],
        scale: Float[Tensor, ""],
    ) -> Float[Tensor, "b c"]:
        """What a softmax over classes is taken of."""
        ...


def adapter_of(kind: str) -> Any:
    """The class of a kind of adapter; raises :class:`InputError` for one that is not there."""
    if kind not in FEATURE_ADAPTERS:
        raise InputError(f"adapter '{kind}' is unknown; known are {', '.join(FEATURE_ADAPTERS)}")
    return named_object(FEATURE_ADAPTERS[kind])


ADAPTER, ADAPTER_TENSORS = "adapter.json", "adapter.safetensors"


class SavedAdapter(Settings):
    """An adapter as JSON: its kind, and what its class makes it from."""

    kind: str
    configuration: dict[str, Any]

    @classmethod
    def of(cls, adapter: Any) -> Self:
        """Of an adapter in the state that it is in now."""
        return cls(kind=adapter.kind, configuration=adapter.configuration())

    def make(self) -> Any:
        """The adapter before its tensors; raises :class:`InputError` for an unknown kind."""
        return adapter_of(self.kind).from_configuration(self.configuration)


def write_feature_adapter(adapter: Any, folder: Path) -> None:
    """Write an adapter into a folder that may hold other things, too."""
    write_json(folder / ADAPTER, SavedAdapter.of(adapter).model_dump())
    write_tensors(folder / ADAPTER_TENSORS, adapter.state_dict())


def read_feature_adapter(folder: Path) -> Any:
    """What :func:`write_feature_adapter` wrote.

    Raises :class:`InputError` for a file that is none, and for tensors that do not fit.
    """
    made = SavedAdapter.read(folder / ADAPTER).make()
    load_saved_tensors(made, folder / ADAPTER_TENSORS)
    return made
