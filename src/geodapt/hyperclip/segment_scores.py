"""From scored masks to segments: which word a mask shows, and which mask a pixel belongs to."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

NO_SEGMENT = -1


@dataclass(frozen=True)
class FoundSegments:
    """Segments of one picture, on the CPU."""

    places: Int[Tensor, "height width"]
    """The number of each pixel's segment, :data:`NO_SEGMENT` where there is none."""
    labels: Int[Tensor, " segments"]
    """Number of the word of each."""
    scores: Float[Tensor, " segments"]
    """How likely it shows that word; of stuff, its likeliest part's."""


def ensemble_scores(
    trained: Float[Tensor, "queries words_and_void"],
    clip: Float[Tensor, "queries words"],
    share: Float[Tensor, " words"],
    covers: Bool[Tensor, " queries"],
) -> tuple[Float[Tensor, "queries words"], Float[Tensor, " queries"]]:
    """FC-CLIP's geometric ensemble: probabilities of words, and of no object.

    Of logits of the trained head and of the CLIP, per word w with its share a(w)::

        p(w) = (1 - void) softmax_w((1 - a(w)) log p_trained(w) + a(w) log p_clip(w))

    where the softmax ``p_trained`` leaves no object out, whose probability among all is
    ``void``. Masks that ``covers`` says cover no place of the CLIP's have a = 0. Source: Yu et al.
    2023, equation 7, as bytedance/fc-clip 2b0bbe2 computes it.
    """
    void = trained.softmax(-1)[:, -1]
    share = torch.where(covers[:, None], share, torch.zeros_like(share))
    mixed = (1 - share) * trained[:, :-1].log_softmax(-1) + share * clip.log_softmax(-1)
    return (1 - void)[:, None] * mixed.softmax(-1), void


def compose_segments(
    scores: Float[Tensor, "queries words"],
    void: Float[Tensor, " queries"],
    masks: Float[Tensor, "queries height width"],
    stuff: Collection[int] = (),
    threshold: float = 0.0,
    overlap: float = 0.8,
) -> FoundSegments:
    """Segments that do not overlap, of probabilities of words and of mask logits.

    Masks that show no object more likely than any of the words together are left out, and those
    whose likeliest word is not likelier than ``threshold``. (FC-CLIP compares no object with that
    one word, so that a mask is lost where many words share its probability.)
    Each pixel goes to the mask with the largest product of its score and the pixel's probability;
    a mask keeps those of its pixels that are more likely in than out, and is left out where others
    took more than ``1 - overlap`` of these. Masks of one word of ``stuff`` are one segment. Source:
    Cheng et al. 2022, Mask2Former's ``panoptic_inference``. (transformers' own compares the overlap
    after it has multiplied by the scores, which leaves out all masks with scores below a half.)
    """
    best, labels = scores.max(-1)
    keep = ((void <= 0.5) & (best > threshold)).nonzero().flatten()
    places = torch.full(masks.shape[1:], NO_SEGMENT)
    if not len(keep):
        return FoundSegments(places, torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    best, labels, inside = best[keep], labels[keep], masks[keep].sigmoid()
    owner = (best[:, None, None] * inside).argmax(0)
    found: list[int] = []
    values: list[float] = []
    for mask, (score, label) in enumerate(zip(best.tolist(), labels.tolist(), strict=True)):
        won, sure = owner == mask, inside[mask] >= 0.5
        own = won & sure
        if not own.any() or won.sum() < overlap * sure.sum():
            continue
        if label in stuff and label in found:
            number = found.index(label)
            values[number] = max(values[number], score)
        else:
            number = len(found)
            found.append(label)
            values.append(score)
        places[own.cpu()] = number
    return FoundSegments(places, torch.tensor(found, dtype=torch.int64), torch.tensor(values))
