"""The same model called in other ways: flags, beams, sorted sentences, another default device."""

import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import PreTrainedModel

from geodapt.adapters import AdapterBank, Mix, Off, Route, merge
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


@torch.no_grad()
def test_an_attribute_of_the_model_is_a_flag_too():
    model = TurnedAround()
    bank = filled(model, ["first", "second"])
    x = torch.randn(3, 3, 6)
    turned = model.forward

    def forward(x):
        return turned(x, model.way)

    model.forward, model.way = forward, "rows"
    with bank.use(Route(ROWS)):
        model(x)
        model.way = "columns"
        with pytest.raises(InputError, match="in different places from call to call"):
            model(x)


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


@pytest.mark.parametrize("weights", ["toys", None, {"toys": "much"}, {"toys": 1e39}, [("toys", 1)]])
def test_weights_that_are_no_numbers_are_refused_before_the_base_changes(weights):
    bank = filled(seeded("bert"), ["query", "value"])
    before = {name: value.clone() for name, value in bank.model.state_dict().items()}
    with pytest.raises(InputError, match=r"takes \{name: weight\}|give a finite number"):
        bank.merge_into_base(weights)
    assert all(value.equal(before[name]) for name, value in bank.model.state_dict().items())
    bank.merge_into_base({"toys": torch.tensor(0.5)})
    bank.unmerge()


def test_numbers_that_are_too_large_or_no_whole_ranks_are_refused():
    with pytest.raises(InputError, match="give a finite number"):
        Mix({"toys": 10**400})
    bank = filled(seeded("bert"), ["query"])
    for rank in (2.5, "4", float("nan")):
        with pytest.raises(InputError, match="give a whole number from 1"):
            merge([bank["toys"], bank["books"]], "svd", rank=rank, same_base=True)


def test_what_is_no_model_no_capacity_and_no_list_is_refused():
    bank = filled(seeded("bert"), ["query"])
    for model in (None, "bert", bank):
        with pytest.raises(InputError, match="acts on a model itself"):
            AdapterBank(model)
    for capacity in (0, 1.5, "2"):
        with pytest.raises(InputError, match="give a whole number from 1, or None"):
            AdapterBank(seeded("bert"), capacity=capacity)
    with pytest.raises(InputError, match="takes a list of adapters"):
        merge(bank["toys"])
