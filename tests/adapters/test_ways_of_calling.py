"""The same model called in other ways: flags, beams, sorted sentences, another default device."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import PreTrainedModel

from geodapt.adapters import AdapterBank, Off, Route, merge
from geodapt.errors import InputError
from tests.adapters.filled import filled
from tests.adapters.made_by_peft import inputs, output, seeded
from tests.radial.small import save_sentence_transformer
from tests.tiny_models import T5, build

ROWS = ["toys", None, "books"]


class TurnedAround(nn.Module):
    """A flag decides which dimension a layer gets first; the batch is the first in any case."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x, way="rows"):
        y = self.first(x if way == "rows" else x.transpose(0, 1))
        return self.second(torch.tanh(y if way == "rows" else y.transpose(0, 1)))


class ReadAtTimes(nn.Module):
    """A flag decides whether a layer is called or its weight read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x, fused=False):
        y = nn.functional.linear(x, self.first.weight, self.first.bias) if fused else self.first(x)
        return self.second(torch.tanh(y))


@pytest.mark.parametrize("ways", [("rows", "columns"), ("columns", "rows")])
@torch.no_grad()
def test_a_layout_that_a_flag_changes_is_not_taken_from_another_call(ways):
    bank = filled(TurnedAround(), ["first", "second"])
    x = torch.randn(3, 3, 6)  # as many rows as positions: shapes tell nothing
    wanted = {}
    for way in ways:
        each = []
        for i, name in enumerate(ROWS):
            with bank.use(name or Off()):
                each.append(bank.model(x, way)[i])
        wanted[way] = torch.stack(each)
    with bank.use(Route(ROWS)):
        for way in ways:
            torch.testing.assert_close(bank.model(x, way=way), wanted[way])
            with pytest.raises(InputError, match="in different places from call to call"):
                bank.model(x, ways[1 - ways.index(way)])
            break
    with bank.use("toys"):
        bank.model(x, ways[1])


class Part(nn.Module):
    """Turns its input around, or reads a weight, where something of its own says so."""

    named, shared = "no", False

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.number, self.options, self.settings = 0, {"odd": False}, SimpleNamespace(odd=None)
        self.empty: dict[str, bool] = {}
        self.axes, self.share = (0, 1), 0.25
        self.act: nn.Module = nn.Tanh()

    def odd(self):
        return (
            self.number == 300
            or self.named == "yes"
            or self.shared
            or self.options["odd"]
            or "new" in self.empty
            or self.axes == (1, 0)
            or self.share > 0.5
            or self.settings.odd is not None
            or isinstance(self.act, nn.Sigmoid)
        )


class Turning(Part):
    def forward(self, x):
        odd = self.odd()
        y = self.act(self.layer(x.transpose(0, 1) if odd else x))
        return y.transpose(0, 1) if odd else y


class Reading(Part):
    def forward(self, x):
        if self.odd():
            return self.act(nn.functional.linear(x, self.layer.weight, self.layer.bias))
        return self.act(self.layer(x))


class Whole(nn.Module):
    def __init__(self, part: Part) -> None:
        super().__init__()
        self.parts = nn.ModuleList([Turning(), part])

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x


CHANGES = {
    "number": lambda part: setattr(part, "number", 300),
    "word": lambda part: setattr(part, "named", "yes"),
    "class": lambda part: setattr(type(part), "shared", True),
    "option": lambda part: part.options.update(odd=True),
    "new option": lambda part: part.empty.update(new=True),
    "axes": lambda part: setattr(part, "axes", (1, 0)),
    "share": lambda part: setattr(part, "share", 0.75),
    "settings": lambda part: setattr(part.settings, "odd", "any"),
    "child": lambda part: setattr(part, "act", nn.Sigmoid()),
    "method": lambda part: setattr(part, "odd", lambda: True),
}


@pytest.mark.parametrize("kind", [Turning, Reading])
@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_what_changes_in_a_part_is_seen(kind, change, monkeypatch):
    monkeypatch.setattr(kind, "shared", False)
    bank = filled(Whole(kind()), ["layer"])
    x = torch.randn(3, 3, 6)  # as many rows as positions: shapes tell nothing
    gate = Route(ROWS) if kind is Turning else "toys"
    told = "in different places from call to call" if kind is Turning else "read without calling"
    with bank.use(gate):
        for _ in range(2):
            bank.model(x)
        CHANGES[change](bank.model.parts[1])
        with pytest.raises(InputError, match=rf"layer parts.\d.layer .*{told}"):
            bank.model(x)


class Counting(Turning):
    """Counts its calls, and runs none of them in another way for it."""

    def forward(self, x):
        self.number += 1
        return super().forward(x)


@torch.no_grad()
def test_what_only_counts_is_no_flag_for_long():
    bank = filled(Whole(Counting()), ["layer"])
    counting, x = bank.model.parts[1], torch.randn(3, 3, 6)
    with bank.use(Route(ROWS)):
        for _ in range(20):
            bank.model(x)
        before = counting.number
        for _ in range(5):
            bank.model(x)
        assert counting.number == before + 5  # no more trials
        CHANGES["option"](counting)
        with pytest.raises(InputError, match="in different places from call to call"):
            bank.model(x)


@pytest.mark.parametrize("fused", [False, True])
@torch.no_grad()
def test_a_weight_that_only_some_calls_read_is_refused_in_those_calls_alone(fused):
    bank = filled(ReadAtTimes(), ["first", "second"])
    x = torch.randn(2, 3, 6)
    with bank.use("toys"):
        for asked in (fused, not fused, fused):
            if asked:
                with pytest.raises(InputError, match="layer first is read without calling"):
                    bank.model(x, asked)
            else:
                assert bank.model(x, fused=False).shape == x.shape


@pytest.mark.parametrize("family", ["llama", "T5ForConditionalGeneration"])
@pytest.mark.parametrize("options", [{"num_beams": 2}, {"num_return_sequences": 2}])
@torch.no_grad()
def test_beams_are_no_rows_of_their_own(family, options):
    made = (
        seeded("llama")
        if family == "llama"
        else build(family, transformers.T5Config(**T5, decoder_start_token_id=0))
    )
    bank = filled(made.eval(), ["q_proj", "v_proj"] if family == "llama" else ["q", "v"])
    ids = inputs("llama", 2)["input_ids"]
    more = {"max_new_tokens": 4, "do_sample": "num_beams" not in options, "pad_token_id": 0}
    for rows, entries in ((1, ["toys", "books"]), (2, ["toys", "books", "books", "toys"])):
        with bank.use(Route(entries)), pytest.raises(InputError, match=f"entries, .* {rows} rows"):
            bank.model.generate(ids[:rows], **options, **more)
    with bank.use(Route(["toys", "books"])):
        assert len(bank.model.generate(ids, **options, **more)) in (2, 4)


@torch.no_grad()
def test_sentences_that_are_sorted_by_length_are_refused_under_a_route(tmp_path):
    folder = str(save_sentence_transformer(tmp_path / "st", pooling="mean_tokens"))
    encoder = SentenceTransformer(folder, device="cpu")
    inner = next(m for m in encoder.modules() if isinstance(m, PreTrainedModel))
    bank = filled(inner, ["query", "value"])
    texts = ["a small bird sings on a red car", "a small bird", "bird"]
    alone = []
    for text, name in zip(texts, ROWS, strict=True):
        with bank.use(name or Off()):
            alone.append(encoder.encode(text, convert_to_tensor=True))
    with bank.use(Route(ROWS)):
        found = encoder.encode(texts, convert_to_tensor=True)
        torch.testing.assert_close(found, torch.stack(alone), atol=1e-5, rtol=1e-4)
        with pytest.raises(InputError, match="sorts what it encodes by length"):
            encoder.encode(texts[::-1])
    with bank.use("toys"):
        assert len(encoder.encode(texts[::-1])) == 3


@pytest.mark.parametrize("family", ["llama", "bert"])
@torch.no_grad()
def test_nothing_is_made_on_the_default_device(family, tmp_path):
    """On the meta device, which holds no numbers, whatever is made there fails."""
    batch, model = inputs(family, 3), seeded(family)
    targets = ["q_proj", "v_proj"] if family == "llama" else ["query", "dense"]
    bank = filled(model, targets)
    with bank.use(Route(ROWS)):
        wanted = output(bank.model, batch)
    bank.close()
    with torch.device("meta"):
        bank = AdapterBank(model)
        with torch.device("cpu"):
            other = filled(seeded(family), targets)
        for name in ("toys", "books"):
            bank.add(name, other[name])
        if family == "bert":  # Llama's own forward makes its positions there
            with bank.use(Route(ROWS)):
                torch.testing.assert_close(output(bank.model, batch), wanted)
        bank.create("new", rank=2, targets=targets)
        bank.save("new", tmp_path / "new")
        bank.load("again", tmp_path / "new")
        for method in ("svd", "ties", "dare", "dense_blocks"):
            merged = merge([bank["toys"], bank["books"]], method, same_base=True)
            merged.save_pretrained(tmp_path / method)
            assert all(A.device.type == "cpu" for A, _, _ in merged.factors.values())
