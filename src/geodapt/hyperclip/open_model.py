"""What a segmenter, a detector and a panoptic model share: words as vectors, writing and reading.

The folder that :meth:`OpenModel.save_pretrained` writes has a file of settings, by whose name the
kind of model is known, the model's parts, and a card.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self
from warnings import warn

from huggingface_hub import ModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn

from geodapt.cards import write_card
from geodapt.checks import texts_of
from geodapt.errors import InputError, InputWarning
from geodapt.files import read_json, write_json
from geodapt.models.hub import find_folder
from geodapt.settings import Settings
from geodapt.vision import Clip
from geodapt.vision.templates import embed_synonyms, fill_templates

EXTRA = "extra.json"
"""Lists the files of a folder without which the model would be another one, but would load."""


def embed_words(
    clip: Clip, words: Sequence[str | Sequence[str]], templates: Sequence[str]
) -> Float[Tensor, "words d"]:
    """A unit vector per word on the model's device: the mean over its synonyms and the templates.

    Without gradients. Raises :class:`InputError` for no words, and for one without letters; warns
    of words that are cut because the model reads no more tokens.
    """
    if isinstance(words, str) or not isinstance(words, Iterable):
        raise InputError(f"give a list of words, not {words!r:.60}")
    names = [texts_of([word] if isinstance(word, str) else word, "words") for word in words]
    if not names:
        raise InputError("there are no words to look for; give at least one")
    filled = fill_templates([name for synonyms in names for name in synonyms], templates)
    most = clip.texts.max_tokens
    for text in (text for row in filled for text in row):
        if (length := len(clip.processor.tokenizer(text)["input_ids"])) > most:
            said = f"'{text[:60]}...' has {length} tokens; the model reads the first {most}"
            warn(InputWarning(said), stacklevel=4)
            break
    return embed_synonyms(clip, names, templates).to(clip.model.device)


class OpenModel(nn.Module, ModelHubMixin, ABC, library_name="geodapt"):
    """A picture and any words in; what comes out is a subclass's. No word is in its weights."""

    called: ClassVar[str]
    """What messages call it."""
    config: ClassVar[str]
    """The file of its settings."""
    needed: ClassVar[tuple[str, ...]] = ()
    """Files that its folder has beside the settings."""
    other_readers: ClassVar[str] = ""
    """What else could read a folder that is not its own."""
    kind: ClassVar[type[Settings]]
    """The class of its settings, which have ``templates``."""

    clip: Clip
    settings: Any

    def take_settings(self, settings: Any) -> None:
        """Keep the settings, the defaults where there are none; refuses templates that are none."""
        self.settings = settings or self.kind()
        # What the mixin writes to config.json, where it would put the arguments, a CLIP among them.
        self._hub_mixin_config = {"geodapt": self.called}
        fill_templates(["word"], self.settings.templates)  # refused here, not at the first picture

    def word_vectors(self, words: Sequence[str | Sequence[str]]) -> Float[Tensor, "words d"]:
        """See :func:`geodapt.hyperclip.open_model.embed_words`."""
        return embed_words(self.clip, words, self.settings.templates)

    # What a subclass says

    @abstractmethod
    def write_parts(self, folder: Path) -> list[str]:
        """Write all but the settings; returns the files that not every model of the kind has."""

    @classmethod
    @abstractmethod
    def read_parts(cls, folder: Path, settings: Any, extra: Collection[str]) -> Self:
        """The model of a folder that :meth:`write_parts` wrote into; ``extra`` it returned."""

    @abstractmethod
    def card(self) -> dict[str, Any]:
        """Arguments of :func:`geodapt.cards.write_card`: title, summary, tags, facts, usage."""

    # Saving

    def _save_pretrained(self, save_directory: Path) -> None:
        write_json(save_directory / EXTRA, self.write_parts(save_directory))
        write_json(save_directory / self.config, self.settings.model_dump(mode="json"))
        write_card(save_directory, base=self.clip.name or None, relation="finetune", **self.card())

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the mixin's reads a config.json first
        cls, source: str | Path, **hub: Any
    ) -> Self:
        """Read what :meth:`save_pretrained` wrote.

        ``source`` is a folder or a hub name, ``hub`` goes to
        :func:`huggingface_hub.snapshot_download`. Raises :class:`InputError` for anything else.
        """
        expected = f"a folder that {cls.__name__}.save_pretrained wrote"
        folder = find_folder(source, cls.called, expected, **hub)
        needed = [cls.config, EXTRA, *cls.needed]
        extra = read_json(folder / EXTRA) if (folder / EXTRA).is_file() else []
        if not isinstance(extra, list) or not all(isinstance(name, str) for name in extra):
            raise InputError(f"{folder / EXTRA} lists no files; save the model again")
        needed += extra
        missing = [name for name in needed if not (folder / name).is_file()]
        if missing:
            raise InputError(
                f"{folder} holds no {cls.called}: it has no {missing[-1]}; give {expected}, such "
                f"as a run's model/{cls.other_readers}"
            )
        return cls.read_parts(folder, cls.kind.read(folder / cls.config), extra).eval()
