"""The training loss of a dense head."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from geodapt.errors import InputError
from geodapt.hyperclip.heads import resized
from geodapt.hyperclip.settings import Ignored


def pixel_loss(
    logits: Float[Tensor, "images classes h w"],
    labels: Int[Tensor, "images height width"],
    ignore: int = 255,
    ignored: Ignored = "left_out",
) -> Float[Tensor, ""]:
    """Binary cross-entropy of every class at every pixel, the mean over pixels and classes.

    Logits are first resized to the labels. Pixels labelled ``ignore`` are left out of the mean; as
    ``negative`` they count as showing none of the classes, as in the released code of CAT-Seg and
    HyperCLIP. Without a pixel that counts the loss is 0.

    Raises :class:`InputError` for a label that is neither a class nor ``ignore``.
    """
    classes = logits.shape[1]
    void = labels == ignore
    wrong = ((labels < 0) | (labels >= classes)) & ~void
    if wrong.any():
        raise InputError(
            f"a mask has the label {int(labels[wrong][0])}; expected 0 to {classes - 1}, or "
            f"{ignore} for pixels to ignore"
        )
    logits = resized(logits, labels.shape[1:])
    target = one_hot(labels.masked_fill(void, 0), classes).movedim(-1, 1).to(logits.dtype)
    if ignored == "negative":
        return binary_cross_entropy_with_logits(logits, target * ~void.unsqueeze(1))
    keep = (~void).unsqueeze(1).to(logits.dtype)
    loss = binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (loss * keep).sum() / (keep.sum() * classes).clamp_min(torch.finfo(loss.dtype).tiny)
