"""Words of any kind as unit vectors, refused or warned of where a model cannot read them."""

from collections.abc import Sequence
from warnings import warn

from jaxtyping import Float
from torch import Tensor

from geodapt.errors import InputError, InputWarning
from geodapt.vision import Clip
from geodapt.vision.templates import embed_synonyms, fill_templates


def embed_words(
    clip: Clip, words: Sequence[str | Sequence[str]], templates: Sequence[str]
) -> Float[Tensor, "words d"]:
    """A unit vector per word on the model's device: the mean over its synonyms and the templates.

    Without gradients. Raises :class:`InputError` for no words, and for one without letters; warns
    of words that are cut because the model reads no more tokens.
    """
    if isinstance(words, str):
        raise InputError(f"give a list of words, not the text {words!r}")
    if not words:
        raise InputError("there are no words to look for; give at least one")
    names = [[word] if isinstance(word, str) else list(word) for word in words]
    most = clip.texts.max_tokens
    for row in fill_templates([name for synonyms in names for name in synonyms], templates):
        for text in row:
            if (length := len(clip.processor.tokenizer(text)["input_ids"])) > most:
                said = f"'{text[:60]}...' has {length} tokens; the model reads the first {most}"
                warn(InputWarning(said), stacklevel=4)
                return _vectors(clip, names, templates)
    return _vectors(clip, names, templates)


def _vectors(clip: Clip, names: list[list[str]], templates: Sequence[str]) -> Tensor:
    return embed_synonyms(clip, names, templates).to(clip.model.device)
