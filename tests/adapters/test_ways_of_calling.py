"""The same model called in other ways: methods, lists, beams, sorted sentences, another device."""

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
    with (
        bank.use(Route(["toys", "books"], blocks=True)),
        pytest.raises(InputError, match="of the 4 rows that generate was given 2 are left"),
    ):
        model.generate(sound, attention_mask=mask, **asked)


def generating(family):
    """A bank on a decoder, or on an encoder with one."""
    if family == "llama":
        return filled(seeded("llama").eval(), ["q_proj", "v_proj"])
    made = build(family, transformers.T5Config(**T5, decoder_start_token_id=0))
    return filled(made.eval(), ["q", "v"])


@pytest.mark.parametrize("family", ["llama", "T5ForConditionalGeneration"])
@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 2}, {"num_beams": 2, "num_return_sequences": 2}]
)
@torch.no_grad()
def test_blocks_of_rows_generate_as_each_block_alone(family, options):
    bank = generating(family)
    ids = inputs("llama", 4)["input_ids"]
    more = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, **options}
    with bank.use(Route(["toys", "books"], blocks=True)):
        got = bank.model.generate(ids, **more)
    half = len(got) // 2
    for name, rows, places in (
        ("toys", slice(0, 2), slice(0, half)),
        ("books", slice(2, 4), slice(half, None)),
    ):
        with bank.use(name):
            alone = bank.model.generate(ids[rows], **more)
        assert got[places, : alone.shape[1]].equal(alone)


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


@pytest.mark.parametrize("family", ["llama", "T5ForConditionalGeneration"])
@pytest.mark.parametrize("options", [{"num_beams": 2}, {"num_return_sequences": 2}])
@torch.no_grad()
def test_beams_are_no_rows_of_their_own(family, options):
    bank = generating(family)
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
