"""Rows of unequal numbers of positions that a model puts together: refused, or in their places."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from transformers import LlamaConfig, LlamaForCausalLM, ModernBertConfig, ModernBertForMaskedLM

from geodapt.adapters import Off, Route
from geodapt.errors import InputError
from tests.adapters.filled import filled

ROWS = ["toys", None, "books"]
LEFT = torch.tensor([4, 3, 2])
RAGGED = "order that their lengths or masks decide|depends on the rows|does not keep the rows apart"


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner, self.outer = nn.Embedding(30, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def put(self, h, where):
        """Positions back in their places, and the mean of each row."""
        y = torch.zeros(*where.shape, 8)
        y[where] = torch.tanh(self.inner(h))
        return self.outer(y.sum(1))


class WithoutPadding(Reader):
    def forward(self, input_ids):
        real = input_ids != 0
        return self.put(self.embed(input_ids)[real], real)


class ByMask(Reader):
    def forward(self, input_ids, padding_mask):
        return self.put(self.embed(input_ids)[~padding_mask], ~padding_mask)


class Labelled(Reader):
    def forward(self, input_ids, labels):
        return self.put(self.embed(input_ids)[labels != -100], labels != -100)


class Packed(Reader):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.GRU(8, 8)

    def forward(self, input_ids, lengths):
        packed = pack_padded_sequence(
            self.embed(input_ids), lengths, batch_first=True, enforce_sorted=False
        )
        h = torch.tanh(self.inner(packed.data))
        order = (packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
        return self.outer(self.last(PackedSequence(h, *order))[1][-1])


class Documents(Reader):
    """Sentences, of which a document may have none: inputs of three dimensions."""

    def forward(self, input_ids):
        real = input_ids.ne(0).any(-1)
        y = torch.zeros(*real.shape, 8)
        y[real] = torch.tanh(self.inner(self.embed(input_ids[real]))).mean(1)
        return self.outer(y.sum(1))


def padding(lengths, width):
    return torch.arange(width) >= lengths[:, None]


def batch(kind, lengths, width):
    """What a model gets of rows with so many real positions each."""
    torch.manual_seed(0)
    pads = padding(lengths, width)
    if kind is Documents:
        return {"input_ids": torch.randint(1, 30, (3, width, 5)).masked_fill(pads[..., None], 0)}
    ids = torch.randint(1, 30, (3, width))
    more = {
        ByMask: {"padding_mask": pads},
        Labelled: {"labels": ids.masked_fill(pads, -100)},
        Packed: {"lengths": lengths.tolist()},
    }
    if kind in (Packed, WithoutPadding):
        ids = ids.masked_fill(pads, 0)
    return {"input_ids": ids, **more.get(kind, {})}


@pytest.mark.parametrize("kind", [WithoutPadding, ByMask, Labelled, Packed, Documents])
@pytest.mark.parametrize("lengths", [LEFT, torch.tensor([3, 3, 3])])
@torch.no_grad()
def test_positions_of_all_rows_in_one_dimension_are_refused_from_the_first_batch(kind, lengths):
    """Of rows of one length, too: the next batch may hold as many positions in others."""
    bank = filled(kind().eval(), ["inner", "outer"])
    with bank.use(Route(ROWS)), pytest.raises(InputError, match=f"layer inner .*({RAGGED})"):
        bank.model(**batch(kind, lengths, 6))
    with bank.use("toys"):
        assert bank.model(**batch(kind, lengths, 6)).isfinite().all()


class Flat(Reader):
    """All positions of all rows, padded ones too: as many of each whatever they hold."""

    def forward(self, input_ids, attention_mask, labels=None):
        h = torch.tanh(self.inner(self.embed(input_ids).flatten(0, 1)))
        y = h.view(*input_ids.shape, 8) * attention_mask[..., None]
        return self.outer(y.sum(1))


@pytest.mark.parametrize("labels", [False, True])
@torch.no_grad()
def test_all_positions_of_all_rows_are_told_apart(labels):
    bank = filled(Flat().eval(), ["inner", "outer"])
    for width in (6, 4, 9):
        ids = torch.randint(1, 30, (3, width))
        given = {"input_ids": ids, "attention_mask": (~padding(LEFT, width)).long()}
        if labels:
            given["labels"] = ids
        alone = []
        for i, name in enumerate(ROWS):
            with bank.use(name or Off()):
                alone.append(bank.model(**{key: value[i : i + 1] for key, value in given.items()}))
        with bank.use(Route(ROWS)):
            torch.testing.assert_close(bank.model(**given), torch.cat(alone))


@pytest.mark.parametrize("count", [torch.tensor(21), 21])
@torch.no_grad()
def test_labels_with_a_count_beside_them_tell_the_rows_apart(count):
    """As transformers' Trainer gives them."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 50}
    torch.manual_seed(0)
    bank = filled(LlamaForCausalLM(LlamaConfig(num_attention_heads=4, **sizes)).eval(), ["q_proj"])
    ids = torch.randint(3, 50, (3, 8))
    given = {"input_ids": ids, "labels": ids.masked_fill(padding(LEFT, 8), -100)}
    alone = 0.0
    for i, name in enumerate(ROWS):
        with bank.use(name or Off()):
            row = {key: value[i : i + 1] for key, value in given.items()}
            alone += bank.model(**row, num_items_in_batch=count).loss
    with bank.use(Route(ROWS)):
        torch.testing.assert_close(bank.model(**given, num_items_in_batch=count).loss, alone)


@torch.no_grad()
def test_a_head_that_reads_labelled_positions_alone_is_refused():
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1}
    config = ModernBertConfig(
        vocab_size=64, num_attention_heads=2, sep_token_id=2, sparse_prediction=True,
        attn_implementation="eager", **sizes, **special,
    )  # fmt: skip
    torch.manual_seed(0)
    bank = filled(ModernBertForMaskedLM(config).eval(), ["dense", "Wo"])
    ids = torch.randint(3, 64, (3, 6))
    labels = ids.masked_fill(torch.arange(6) % 3 > 0, -100)  # two in each row
    with bank.use(Route(ROWS)):
        with pytest.raises(InputError, match=f"layer head.dense .*({RAGGED})"):
            bank.model(input_ids=ids, labels=labels)
        got = bank.model(input_ids=ids).logits
    for i, name in enumerate(ROWS):
        with bank.use(name or Off()):
            torch.testing.assert_close(got[i], bank.model(input_ids=ids[i : i + 1]).logits[0])
