"""Models that sort rows by their lengths are refused, whatever their first batch was."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from geodapt.adapters import Route
from geodapt.errors import InputError
from tests.adapters.filled import filled
from tests.adapters.test_rows import outputs
from tests.tiny_models import SEQ2SEQ, tiny, tiny_bert, tiny_llama, tiny_t5

PAD = 1
LENGTHS = [(5, 5, 5), (3, 4, 5), (5, 4, 3), (4, 3, 5)]
ROWS = ("toys", None, "books")


def real(lengths: tuple[int, ...]) -> Tensor:
    return torch.arange(5) < torch.tensor(lengths)[:, None]


def ids(lengths: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(sum(lengths))
    found = torch.randint(5, 50, (3, 5), generator=generator)
    return found.where(real(lengths), PAD)


INPUTS: dict[str, Callable] = {
    "a mask": lambda n: {"attention_mask": real(n).long()},
    "a padding mask": lambda n: {"src_key_padding_mask": ~real(n)},
    "lengths": lambda n: {"lengths": torch.tensor(n)},
    "padding": lambda n: {},
}


class Sorts(nn.Module):
    """Every row goes through a layer in the order of its length, and queries meet them so."""

    def __init__(self, descending: bool) -> None:
        super().__init__()
        self.config = PretrainedConfig(pad_token_id=PAD)
        self.descending = descending
        self.embed = nn.Embedding(50, 8)
        self.before, self.within, self.asks = (nn.Linear(8, 8) for _ in range(3))
        self.queries = nn.Parameter(torch.randn(1, 2, 8))

    def forward(
        self, input_ids, attention_mask=None, src_key_padding_mask=None, lengths=None
    ) -> Tensor:
        if attention_mask is not None:
            lengths = attention_mask.sum(1)
        elif src_key_padding_mask is not None:
            lengths = (~src_key_padding_mask).sum(1)
        elif lengths is None:
            lengths = (input_ids != PAD).sum(1)
        order = lengths.argsort(descending=self.descending, stable=True)
        x = self.before(self.embed(input_ids))[order]
        queries = self.asks(self.queries.expand(len(x), -1, -1))
        x = self.within(x).mean(1, keepdim=True) * queries
        return x[order.argsort()]


@pytest.mark.slow
@pytest.mark.parametrize("given", INPUTS)
@pytest.mark.parametrize("descending", [True, False])
@torch.no_grad()
def test_rows_that_a_model_sorts_are_refused_whatever_their_first_order(given, descending):
    for first in LENGTHS:
        torch.manual_seed(0)
        model = Sorts(descending).eval()
        for targets in ["within"], ["asks"]:
            bank = filled(model, targets)
            for lengths in [first, *LENGTHS]:
                reason = "orders them|an order that|does not depend"
                with bank.use(Route(ROWS)), pytest.raises(InputError, match=reason):
                    bank.model(input_ids=ids(lengths), **INPUTS[given](lengths))
            bank.close()
        bank = filled(model, ["before"])  # which runs before they are sorted
        for lengths in [first, *LENGTHS]:
            check(bank, {"input_ids": ids(lengths)} | INPUTS[given](lengths))
        bank.close()


def check(bank, batch: dict[str, Tensor]) -> None:
    """Each row has what a batch under its adapter alone has in that row."""
    torch.manual_seed(0)  # of dropout
    with bank.use(Route(ROWS)):
        found = outputs(bank.model(**batch))
    for i, name in enumerate(ROWS):
        torch.manual_seed(0)
        with bank.use(Route([name] * len(ROWS))):
            for one, other in zip(found, outputs(bank.model(**batch)), strict=True):
                torch.testing.assert_close(one[i], other[i], atol=1e-5, rtol=1e-4)


TEXTS: dict[str, tuple[Callable, list[str]]] = {
    "bert": (tiny_bert, ["query", "dense"]),
    "llama": (tiny_llama, ["q_proj", "down_proj"]),
    "t5": (tiny_t5, ["q", "wo"]),
    "bart": (lambda: tiny("BartForSequenceClassification", SEQ2SEQ), ["q_proj", "fc1"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("family", TEXTS)
@torch.no_grad()
def test_rows_of_unlike_lengths_get_their_own_adapters(family, training):
    make, targets = TEXTS[family]
    bank = filled(make().train(training), targets)
    for i, lengths in enumerate(LENGTHS):
        mask = real(lengths).long()
        batch = {"input_ids": ids((5, 5, 5)), "attention_mask": mask.flip(1) if i % 2 else mask}
        if family == "t5":
            batch["decoder_input_ids"] = batch["input_ids"][:, :3]
        if family == "bart":
            batch["input_ids"][:, -1] = bank.model.config.eos_token_id
        check(bank, batch)


class Demands(Sorts):
    """Takes rows in the order of their lengths only, and refuses a second input now and then."""

    def forward(self, input_ids, lengths=None, hints=None) -> Tensor:
        if lengths is not None and (lengths.diff() > 0).any():
            raise ValueError("rows come longest first")
        x = self.embed(input_ids)
        if hints is not None:
            if hints.shape[0] > 1 and not (hints[0] == 0).all():
                raise ValueError("the first row has no hints")
            x = x + hints
        return self.before(x)


@torch.no_grad()
def test_where_no_trial_runs_rows_are_refused_whatever_other_calls_have_shown():
    bank = filled(Demands(descending=True).eval(), ["before"])
    longest_first = {"input_ids": ids((5, 4, 3)), "lengths": torch.tensor((5, 4, 3))}
    with bank.use(Route(ROWS)), pytest.raises(InputError, match="rows come longest first"):
        bank.model(**longest_first)
    check(bank, {"input_ids": ids((5, 4, 3))})
    hinted = {"input_ids": ids((5, 5, 5)), "hints": torch.zeros(3, 5, 8)}
    for _ in range(2):
        with bank.use(Route(ROWS)), pytest.raises(InputError, match="has no hints"):
            bank.model(**hinted)
    check(bank, {"input_ids": ids((5, 4, 3))})  # goes on as before
    with bank.use(Route(["toys"] * 3)):
        bank.model(**longest_first)  # nothing has to be known where all rows have one adapter
