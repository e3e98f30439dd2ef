"""The same model called in other ways: flags, beams, sorted sentences, another default device."""

from enum import Enum
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import PreTrainedModel

from geodapt.adapters import AdapterBank, Mix, Off, Route, TopAtoms, merge
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


class Windows(nn.Module):
    """Windows of two positions, in runs of each row or in tiles, as an argument says."""

    def __init__(self, odd) -> None:
        super().__init__()
        self.inner, self.odd = nn.Linear(6, 6), odd

    def forward(self, x, way=None, position_ids=None, attention_mask=None, timestep=0):
        given = {"way": way, "places": position_ids, "mask": attention_mask, "step": timestep}
        odd, rows, windows = self.odd(SimpleNamespace(**given)), len(x), x.shape[1] // 2
        h = x.unflatten(1, (windows, 2))
        y = self.inner((h.transpose(0, 1) if odd else h).flatten(0, 1))
        y = y.unflatten(0, (windows, rows)).transpose(0, 1) if odd else y.unflatten(0, (rows, -1))
        return y.flatten(1, 2)


class Way(Enum):
    RUNS, TILES = 1, 2


def by_way(one, other):
    return {"way": one}, {"way": other}, lambda given: given.way == other


ASKED = {
    "float": by_way(0.5, 1.5),
    "tuple": by_way((0, 1), (1, 0)),
    "list": by_way([0], [1]),
    "set": by_way({0}, {1}),
    "enum": by_way(Way.RUNS, Way.TILES),
    "dictionary": by_way({"a": {"b": 0}}, {"a": {"b": 1}}),
    "options": by_way(SimpleNamespace(odd=0), SimpleNamespace(odd=1)),
    "slice": by_way(slice(1), slice(2)),
    "complex": by_way(1j, 2j),
    "numpy": by_way(np.float32(1), np.float32(2)),
    "type": by_way(torch.float16, torch.float32),
    "function": by_way(torch.tanh, torch.relu),
    "none": by_way(None, "any"),
    "whole number": ({"timestep": 1}, {"timestep": 9}, lambda given: given.step > 5),
    "positions": ({}, {"position_ids": torch.arange(8)[None]}, lambda g: g.places is not None),
    "mask": (
        {"attention_mask": torch.ones(3, 8)},
        {"attention_mask": torch.ones(3, 8, 8)},
        lambda given: given.mask.ndim == 3,
    ),
}


@pytest.mark.parametrize("asked", ASKED)
@torch.no_grad()
def test_arguments_that_choose_another_way_are_another_kind_of_call(asked):
    first, then, odd = ASKED[asked]
    x = torch.randn(3, 8, 6)
    for ways in ((first, then), (then, first)):
        bank = filled(Windows(odd), ["inner"])
        alone = []
        for i, name in enumerate(ROWS):
            with bank.use(name or Off()):
                alone.append(bank.model(x[i : i + 1], **ways[0]))
        with bank.use(Route(ROWS)):
            torch.testing.assert_close(bank.model(x, **ways[0]), torch.cat(alone))
            with pytest.raises(InputError, match="in different places from call to call"):
                bank.model(x, **ways[1])


def test_a_way_that_gradients_choose_is_another_kind_of_call():
    bank, x = (
        filled(Windows(lambda given: torch.is_grad_enabled()), ["inner"]),
        torch.randn(3, 8, 6),
    )
    with bank.use(Route(ROWS)):
        with torch.no_grad():
            bank.model(x)
        with pytest.raises(InputError, match="in different places from call to call"):
            bank.model(x)


class ByMethods(nn.Module):
    """Tokens first, as OpenAI's CLIP has them, and methods beside ``forward``."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner = nn.Embedding(30, 8), nn.Linear(8, 8)

    def encode(this, ids):  # whatever it calls itself
        h = this.embed(ids).transpose(0, 1)
        return torch.tanh(this.inner(h)).mean(0)

    def forward(self, ids):
        return self.encode(ids)


@pytest.mark.parametrize("tokens", [3, 5, 6])
@pytest.mark.parametrize(
    "gate",
    [
        Route(ROWS),
        Route(ROWS, blocks=True),
        TopAtoms(1, Mix({"toys": 1.0, "books": 1.0}), per="sequence"),
    ],
    ids=["route", "blocks", "atoms"],
)
@torch.no_grad()
def test_a_method_in_place_of_a_call_is_refused_where_rows_differ(tokens, gate):
    bank = filled(ByMethods(), ["inner"])
    ids = torch.randint(30, (3, tokens))
    with bank.use(gate):
        bank.model(ids)
        with pytest.raises(InputError, match=r"layer inner runs in ByMethods.encode, outside of"):
            bank.model.encode(ids)
        with pytest.raises(InputError, match=r"layer inner runs in ByMethods\.\w+, outside of"):
            bank.model.forward(ids)
        assert bank.model.inner(torch.randn(3, 2, 8)).shape == (3, 2, 8)
    with bank.use("toys"):
        torch.testing.assert_close(bank.model.encode(ids), bank.model(ids))


class OfLists(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, rows):
        return torch.cat([self.inner(x[None]) for x in rows])


@torch.no_grad()
def test_rows_in_a_list_are_not_taken_for_those_of_its_first_tensor():
    bank = filled(OfLists(), ["inner"])
    rows = [torch.randn(3, 6) for _ in range(3)]
    with bank.use(Route(ROWS)), pytest.raises(InputError, match="no input of OfLists holds"):
        bank.model(rows)


@torch.no_grad()
def test_rows_that_leave_a_generation_are_not_guessed_from_blocks():
    """Whisper drops rows whose sound has ended."""
    torch.manual_seed(0)
    sizes = {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "d_model": 16, "num_mel_bins": 4}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_layers": 1}
    places = {"max_source_positions": 20, "max_target_positions": 30, "decoder_layers": 1}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
    config = transformers.WhisperConfig(
        vocab_size=60, suppress_tokens=None, begin_suppress_tokens=None,
        **sizes, **heads, **places, **tokens,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config).eval()
    model.generation_config.no_timestamps_token_id = 40
    for parameter in model.parameters():
        parameter.mul_(5 if parameter.ndim > 1 else 1)
    bank = filled(model, ["q_proj", "v_proj"])
    sound, mask = torch.randn(4, 4, 100), torch.ones(4, 100, dtype=torch.long)
    asked = {"max_new_tokens": 4, "do_sample": False, "return_timestamps": True}
    mask[:2, 40:] = 0
    with bank.use(Route(["toys", "books"], blocks=True)):
        with pytest.raises(InputError, match="of the 4 rows that generate was given 2 are left"):
            model.generate(sound, attention_mask=mask, **asked)
        short = model.generate(sound[..., :40], **asked)
    for name, rows in (("toys", slice(0, 2)), ("books", slice(2, 4))):
        with bank.use(name):
            alone = model.generate(sound[..., :40], **asked)[rows]
        assert short[rows, : alone.shape[1]].equal(alone)


@torch.no_grad()
def test_beams_that_the_models_own_configuration_asks_for_are_counted():
    bank = filled(seeded("llama"), ["q_proj", "v_proj"])
    ids = inputs("llama", 2)["input_ids"]
    bank.model.generation_config.num_beams = 3
    more = transformers.GenerationConfig(max_new_tokens=3, pad_token_id=0)
    with bank.use(Route(["toys", "books"])):
        got = bank.model.generate(ids, generation_config=more)
    for i, name in enumerate(["toys", "books"]):
        with bank.use(name):
            alone = bank.model.generate(ids[i : i + 1], generation_config=more)
        assert got[i].tolist()[: alone.shape[1]] == alone[0].tolist()


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
