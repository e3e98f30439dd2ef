"""The texts of classes with room for learned tokens: any names, at any time, no longer than needed.

CLIP's text tower is causal and reads a text at its end token, so what comes after it changes
nothing: texts are as long as the longest of them and not 77 tokens (equal to 1e-6, a third of the
time at 50 classes). A SigLIP reads its last position and was trained without a mask, so its texts
have its full length.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from geodapt.errors import InputError
from geodapt.vision.clip import Clip
from geodapt.vision.deep_prompts import Prompts, prompts_on
from geodapt.vision.templates import fill_templates
from geodapt.vision.text import pooled
from geodapt.vision.towers import is_siglip, text_tower

Place = Literal["end", "middle", "front"]


class ClassTexts:
    """Tokens of class names in a template, with ``count`` places for learned tokens.

    ``place`` says where the name stands among them: ``end``: before the text; ``front``: right
    after the name; ``middle``: half of them there, and half before the text.

    Raises :class:`InputError` for a template without exactly one ``{}``, an empty name, no names,
    a text that is too long to be read whole, and a template with the name joined to what follows,
    where tokens should go between the two.
    """

    def __init__(
        self,
        clip: Clip,
        names: Sequence[str],
        template: str,
        count: int = 0,
        place: Place = "end",
    ) -> None:
        if not names:
            raise InputError("there are no classes; give at least one name")
        texts = [row[0] for row in fill_templates(names, [template])]
        self.names, self.place, self.count = tuple(names), place, count
        tower, tokenizer = text_tower(clip.model), clip.processor.tokenizer
        self.start = tower.start
        own = tokenizer(texts)["input_ids"]
        limit = min(tokenizer.model_max_length, tower.positions)
        for text, ids in zip(texts, own, strict=True):
            if len(ids) + count > limit:
                raise InputError(
                    f"the class text '{text}' has {len(ids)} tokens, with {count} learned ones "
                    f"more than the {limit} that {clip.name or 'the model'} reads; shorten the "
                    "name or learn fewer tokens"
                )
        after = [0] * len(own)  # where what follows the name begins, without the start token
        if place != "end":
            heads = [template.partition("{}")[0] + name for name in names]
            after = [
                _end_of(head, tokenizer(head)["input_ids"], ids, tower.start)
                for head, ids in zip(heads, own, strict=True)
            ]
        before = {"end": count, "middle": count // 2, "front": 0}[place]
        filler = next((i for i in own[0] if i not in tokenizer.all_special_ids), own[0][0])
        rows, places = [], []
        for ids, end in zip(own, after, strict=True):
            head, name, rest = ids[: self.start], ids[self.start : end], ids[max(end, self.start) :]
            rows.append([*head, *[filler] * before, *name, *[filler] * (count - before), *rest])
            second = self.start + before + len(name)
            places.append(
                [
                    *range(self.start, self.start + before),
                    *range(second, second + count - before),
                ]
            )
        whole = is_siglip(clip.model)
        length = tower.positions if whole else max(map(len, rows))
        padding = tokenizer.pad_token_id
        device = clip.model.device
        self.ids: Int[Tensor, "classes tokens"] = torch.tensor(
            [[*ids, *[padding] * (length - len(ids))] for ids in rows], device=device
        )
        self.mask: Int[Tensor, "classes tokens"] | None = None
        if not whole:
            self.mask = torch.tensor(
                [[1] * len(ids) + [0] * (length - len(ids)) for ids in rows], device=device
            )
        self.places: Int[Tensor, "classes count"] = torch.tensor(places, device=device).reshape(
            len(rows), count
        )

    def __len__(self) -> int:
        return len(self.names)

    def features(
        self, clip: Clip, prompts: Prompts | None = None, at_once: int = 100
    ) -> Float[Tensor, "classes d"]:
        """The text tower's vectors, not scaled to length 1, with gradients to the prompts.

        Prompts are the same for all classes, (count, width) a layer, or those of each. Of more
        classes than ``at_once`` the activations are not kept, but computed again in the backward
        pass, ``at_once`` classes at a time.
        """
        prompts = prompts or Prompts()
        if len(self) <= at_once:
            return self._some(clip, prompts, 0, len(self))
        starts = range(0, len(self), at_once)
        parts = [partial(self._some, clip, prompts, s, min(s + at_once, len(self))) for s in starts]
        if not torch.is_grad_enabled():
            return torch.cat([part() for part in parts])
        return torch.cat([checkpoint(part, use_reentrant=False) for part in parts])

    def _some(self, clip: Clip, prompts: Prompts, start: int, end: int) -> Tensor:
        # Prompts are put on in here: what is computed again runs outside of the caller's block.
        tokens = {"input_ids": self.ids[start:end]}
        if self.mask is not None:
            tokens["attention_mask"] = self.mask[start:end]
        text = [
            values[start:end] if values is not None and values.dim() == 3 else values
            for values in prompts.text
        ]
        places = None if self.place == "end" else self.places[start:end]
        given = Prompts(text=text, text_places=places)
        with prompts_on(clip.model, given):
            return pooled(clip.model.get_text_features(**tokens)).float()


def _end_of(head: str, head_ids: list[int], ids: list[int], start: int) -> int:
    """Where the tokens of ``head`` end in those of the whole text."""
    known = head_ids[: len(head_ids) - 1] if head_ids[-1] == ids[-1] else head_ids  # the end token
    if ids[: len(known)] != known or len(known) <= start:
        raise InputError(
            f"the name in '{head}' is one token with what follows it in the template, so that no "
            "learned token fits between; put a space after {}"
        )
    return len(known)


def embedded_words(clip: Clip, words: str) -> Float[Tensor, "tokens width"]:
    """The token embeddings of some words, without those of start and end."""
    tower, tokenizer = text_tower(clip.model), clip.processor.tokenizer
    ids = tokenizer(words, add_special_tokens=False)["input_ids"]
    if not ids:
        raise InputError(f"the words '{words}' have no tokens; leave words out")
    # By the weights: a hook on the module may have prompts on.
    weight = tower.embedding.get_parameter("weight")
    return weight[torch.tensor(ids, device=clip.model.device)].detach().float()
