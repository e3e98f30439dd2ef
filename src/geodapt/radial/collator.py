"""Chains as batches: the root's text, each different text once, and the triples among them."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from geodapt.data.chains import Chain
from geodapt.errors import InputError
from geodapt.models import TextEncoder


class ChainCollator:
    """Turns chains with negatives into what :class:`geodapt.radial.tuning.Tuner` takes.

    ``triples`` is (t, 4): the rows of a general text, of the text that entails it (the next of its
    chain), of the one that contradicts it, and of the chain's most specific text. Row 0 is the
    root's text. Texts that chains share, such as a tree's inner nodes, are encoded once.
    """

    def __init__(self, encoder: TextEncoder, root: str) -> None:
        self.encoder, self.root = encoder, root

    def __call__(self, chains: Sequence[Chain]) -> dict[str, Tensor]:
        texts, triples = self.triples(chains)
        return {"triples": triples, **self.encoder.tokens(texts)}

    def triples(self, chains: Sequence[Chain]) -> tuple[list[str], Int[Tensor, "triples 4"]]:
        """The texts by row, and the triples among them."""
        rows: dict[str, int] = {self.root: 0}

        def row(text: str) -> int:
            return rows.setdefault(text, len(rows))

        triples = []
        for chain in chains:
            if len(chain.negatives) < len(chain.texts) - 1:
                raise InputError(
                    f"the chain of '{chain.texts[0]}' has {len(chain.negatives)} negatives for "
                    f"{len(chain.texts)} levels; draw them with geodapt.data.chains.contradicted"
                )
            specific = row(chain.texts[-1])
            for level, negative in enumerate(chain.negatives[: len(chain.texts) - 1]):
                general, entailed = chain.texts[level : level + 2]
                triples.append((row(general), row(entailed), row(negative), specific))
        return list(rows), torch.tensor(triples)
