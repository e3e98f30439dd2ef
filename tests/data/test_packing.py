"""Documents as packed rows: nothing lost, nothing mixed up, and models that keep them apart."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DeepseekV3Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from geodapt.data.corpus import Corpus, packing
from geodapt.data.corpus.packing import Packer, collate, packed, tokenized
from geodapt.data.corpus.tokens import (
    TokenizerSettings,
    load_tokenizer,
    tokenizer_fingerprint,
    tokenizer_for,
    train_tokenizer,
)
from geodapt.errors import InputError
from geodapt.helm import HelmConfig

TEXTS = [f"The {word} of number {n} is here." for n in range(40) for word in ("name", "place")]
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 320)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODAPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def corpus(texts=TEXTS, key="key") -> Corpus:
    return Corpus("toys", key, lambda: ((split, text) for split in SPLITS for text in texts))


def pack(texts, tokenizer, length):
    """The training rows of some texts."""
    packer = Packer(length)
    return [
        row
        for split, tokens in tokenized(corpus(texts), tokenizer)
        if split == "train"
        for row in packer.add(tokens)
    ]


# --- the tokenizer -----------------------------------------------------------------------------


def test_any_text_comes_back(tokenizer):
    for text in (*TEXTS, "naïve  中文\n\t🙂", "<|pad|>", ""):
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(tokens, clean_up_tokenization_spaces=False) == text
    assert len(tokenizer) == 320
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)


def test_it_is_trained_once_and_saved(cache, monkeypatch):
    first = tokenizer_for(corpus(), TokenizerSettings(vocab_size=310))
    monkeypatch.setattr(
        "geodapt.data.corpus.tokens.train_tokenizer", lambda *_: pytest.fail("again")
    )
    again = tokenizer_for(corpus(), TokenizerSettings(vocab_size=310))
    assert tokenizer_fingerprint(again) == tokenizer_fingerprint(first)
    assert again("The name")["input_ids"] == first("The name")["input_ids"]
    with pytest.raises(pytest.fail.Exception, match="again"):
        tokenizer_for(corpus(key="other"), TokenizerSettings(vocab_size=310))


def test_tokenizers_are_told_apart(tokenizer):
    assert tokenizer_fingerprint(train_tokenizer(TEXTS, 320)) == tokenizer_fingerprint(tokenizer)
    assert tokenizer_fingerprint(train_tokenizer(TEXTS, 321)) != tokenizer_fingerprint(tokenizer)


def test_by_name(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "mine")
    loaded = tokenizer_for(corpus(), str(tmp_path / "mine"))
    assert tokenizer_fingerprint(loaded) == tokenizer_fingerprint(tokenizer)


def test_padding_is_the_end_where_there_is_none(tmp_path):
    words = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1, "<end>": 2}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>").save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).pad_token == "<end>"
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path / "endless")
    with pytest.raises(InputError, match="has no end of text"):
        load_tokenizer(str(tmp_path / "endless"))


def test_a_missing_tokenizer(tmp_path):
    for name in (str(tmp_path / "gone"), "no/such-tokenizer"):
        with pytest.raises(InputError, match=f"tokenizer '{name}' could not be loaded"):
            load_tokenizer(name)


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_no_text_to_train_on(texts, cache):
    with pytest.raises(InputError, match="the corpus is empty"):
        tokenizer_for(corpus(texts), TokenizerSettings(vocab_size=310))


# --- the rows ----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(alphabet="ab e.", max_size=30), max_size=20), st.integers(1, 40))
def test_rows_are_the_documents_end_to_end(tokenizer, texts, length):
    rows = pack(texts, tokenizer, length)
    stream = [
        t for text in texts for t in (1, *tokenizer.encode(text, add_special_tokens=False), 2)
    ]
    assert [t for row, _ in rows for t in row.tolist()] == stream[: len(rows) * length]
    assert len(stream) - len(rows) * length < length
    # Pieces end where documents or rows do, and nowhere else.
    ends, at = set(), 0
    for row, pieces in rows:
        assert len(row) == length == sum(pieces)
        for piece in pieces:
            at += piece
            ends.add(at)
    documents = {i + 1 for i, token in enumerate(stream) if token == 2 and i < at}
    assert ends == documents | {length * (i + 1) for i in range(len(rows))}


def test_batches(tokenizer):
    texts = ["a b", "a b a b a b a b a b"]
    rows = [{"input_ids": row, "lengths": pieces} for row, pieces in pack(texts, tokenizer, 8)]
    batch = collate(rows)
    first = rows[0]["lengths"][0]
    assert batch["position_ids"][0].tolist() == [*range(first), *range(8 - first)]
    assert batch["position_ids"][1].tolist() == [*range(8)]
    starts = batch["position_ids"] == 0
    assert (batch["labels"][starts] == -100).all()
    assert torch.equal(batch["labels"][~starts], batch["input_ids"][~starts])


def test_rows_are_kept_in_the_cache(tokenizer, cache, monkeypatch):
    first = packed(corpus(), tokenizer, 16)
    expected = pack(TEXTS, tokenizer, 16)
    assert len(first["test"]) == len(expected)
    assert [row["input_ids"].tolist() for row in first["test"]] == [r.tolist() for r, _ in expected]
    assert [row["lengths"].tolist() for row in first["test"]] == [pieces for _, pieces in expected]
    monkeypatch.setattr(packing, "tokenized", lambda *_: pytest.fail("packed again"))
    assert len(packed(corpus(), tokenizer, 16)["train"]) == len(first["train"])
    with pytest.raises(pytest.fail.Exception, match="packed again"):
        packed(corpus(), tokenizer, 17)


def test_a_kill_leaves_no_rows(tokenizer, cache):
    def killed():
        yield "train", "The name of number 3 is here. " * 10
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed(Corpus("toys", "key", killed), tokenizer, 8)
    assert {path.suffix for path in (cache / "tokens").iterdir()} == {".lock"}


@pytest.mark.parametrize("texts", [[], ["short"]])
def test_too_little_text(texts, tokenizer, cache):
    with pytest.raises(InputError, match="toys: the text for train is empty or shorter than one"):
        packed(corpus(texts), tokenizer, 64)


# --- models keep documents apart ---------------------------------------------------------------

SMALL = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
LATENT = {
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "q_lora_rank": None,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
}
CONFIGURATIONS = {
    "llama": LlamaConfig(**SMALL),
    "deepseek": DeepseekV3Config(**SMALL, **LATENT, first_k_dense_replace=1),
    "helm-d": HelmConfig(**SMALL),
    "helm-mice": HelmConfig(**SMALL, **LATENT, attention="mla"),
}


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_document_is_read_as_if_it_stood_alone(name, kernel, tokenizer):
    model = AutoModelForCausalLM.from_config(CONFIGURATIONS[name], attn_implementation=kernel)
    model.train()  # as in training; none of them has dropout
    rows = [{"input_ids": row, "lengths": pieces} for row, pieces in pack(TEXTS[:6], tokenizer, 60)]
    batch = collate(rows)
    with torch.no_grad():
        out = model(**batch)
        nats, targets = 0.0, 0
        for row, logits in zip(rows, out.logits, strict=True):
            at = 0
            for piece in row["lengths"]:
                tokens = torch.from_numpy(row["input_ids"][at : at + piece]).long().unsqueeze(0)
                alone = model(input_ids=tokens, use_cache=False).logits[0]
                torch.testing.assert_close(logits[at : at + piece], alone, atol=2e-5, rtol=1e-4)
                losses = torch.nn.functional.cross_entropy(
                    alone[:-1], tokens[0, 1:], reduction="sum"
                )
                nats, targets, at = nats + losses.item(), targets + piece - 1, at + piece
    assert targets == int((batch["labels"][:, 1:] != -100).sum())
    balance = 0 if out.get("aux_loss") is None else model.config.router_aux_loss_coef * out.aux_loss
    assert out.loss.item() - balance == pytest.approx(nats / targets, rel=1e-4)
    assert math.isfinite(nats)


def test_saved_with_the_model_it_loads_by_its_folder(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded("The name of")["input_ids"] == tokenizer("The name of")["input_ids"]
    assert loaded.eos_token_id == tokenizer.eos_token_id
