"""The model that every method trains and evaluates: an encoder and a head."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.utils import ModelOutput

from geodapt.xcross.encoders import Encoder
from geodapt.xcross.head import Head


@dataclass
class Scores(ModelOutput):
    """``logits``: a score per candidate (ranking) or per label (classification)."""

    loss: Float[Tensor, ""] | None = None
    logits: Float[Tensor, "rows choices"] | None = None


class Scorer(nn.Module):
    """``score(S_u, i)`` for the candidates of each row, or label scores of each text.

    The loss is the negative log likelihood of the true item among the row's candidates
    (X-Cross, stage 6), or of the true label.
    """

    def __init__(self, encoder: Encoder, head: Head) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(
        self,
        input_ids: Int[Tensor, "rows candidates tokens"],
        attention_mask: Int[Tensor, "rows candidates tokens"],
        token_type_ids: Int[Tensor, "rows candidates tokens"] | None = None,
        shared: Int[Tensor, " rows"] | None = None,
        labels: Int[Tensor, " rows"] | None = None,
    ) -> Scores:
        """``shared`` says how many leading tokens a row's candidates have in common.

        A decoder in eval mode then encodes these once per row instead of once per candidate.
        """
        rows, candidates, _ = input_ids.shape
        if self._can_share(shared, candidates):
            pooled = self._continue_shared(input_ids, attention_mask, shared)
        else:
            types = None if token_type_ids is None else token_type_ids.flatten(0, 1)
            pooled = self.encoder(input_ids.flatten(0, 1), attention_mask.flatten(0, 1), types)
        logits = self.head(pooled).reshape(rows, -1)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return Scores(loss=loss, logits=logits)

    def _can_share(self, shared: Tensor | None, candidates: int) -> bool:
        return (
            shared is not None
            and candidates > 1
            and not self.training
            and self.encoder.decoder
            and self.encoder.pooling == "last"
            and bool((shared > 0).all())
        )

    def _continue_shared(self, input_ids, attention_mask, shared):
        history = int(shared.max())
        # The history moves to the right of its columns, the candidates to the left of theirs.
        columns = torch.arange(history, device=shared.device) - (history - shared).unsqueeze(1)
        past_mask = (columns >= 0).long()
        past = input_ids[:, 0].gather(1, columns.clamp_min(0))
        rest = int((attention_mask.sum(-1) - shared.unsqueeze(1)).max())
        columns = torch.arange(rest, device=shared.device) + shared.unsqueeze(1)
        inside = (columns < input_ids.shape[2]).long()
        columns = (
            columns.clamp_max(input_ids.shape[2] - 1)
            .unsqueeze(1)
            .expand(-1, input_ids.shape[1], -1)
        )
        own = input_ids.gather(2, columns).flatten(0, 1)
        own_mask = (attention_mask.gather(2, columns) * inside.unsqueeze(1)).flatten(0, 1)
        cache = self.encoder.prefix(past, past_mask)
        return self.encoder.continued(cache, past_mask, own, own_mask)
