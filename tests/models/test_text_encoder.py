"""Text encoders beside sentence-transformers and beside one text at a time."""

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from sentence_transformers import SentenceTransformer
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from geodapt.errors import InputError, InputWarning
from geodapt.models import text_encoder
from geodapt.models.text_encoder import TEXTS_AT_ONCE, TextEncoder
from tests.radial.small import save_bert, save_sentence_transformer

TEXTS = ["", "animal", "a small bird sings on a red car", "car", *(f"bird {n}" for n in range(20))]


@pytest.mark.parametrize("mode", ["mean_tokens", "cls_token", "lasttoken", "max_tokens"])
def test_a_declared_pooling_gives_the_vectors_of_sentence_transformers(tmp_path, mode):
    folder = str(save_sentence_transformer(tmp_path / "st", pooling=mode))
    encoder = TextEncoder.load(folder)
    wanted = SentenceTransformer(folder, device="cpu").encode(TEXTS, convert_to_tensor=True)
    assert torch.allclose(encoder.embed(TEXTS), wanted, atol=1e-5)
    assert torch.allclose(encoder(**encoder.tokens(TEXTS)), wanted, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_a_pooling_that_is_asked_for(tmp_path, pooling):
    folder = str(save_bert(tmp_path / "bert"))
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    encoder = TextEncoder(model, tokenizer, pooling=pooling)
    assert len(TEXTS) > TEXTS_AT_ONCE
    found = encoder(**encoder.tokens(TEXTS))
    for row, text in enumerate(TEXTS):
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        one = {"mean": states.mean(0), "cls": states[0], "lasttoken": states[-1]}[pooling]
        assert torch.allclose(found[row], normalize(one, dim=0), atol=1e-5)


def test_what_cannot_be_pooled(tmp_path):
    with pytest.raises(InputError, match="pools by nothing known"):
        TextEncoder.load(str(save_sentence_transformer(tmp_path / "a", pooling="strange")))
    with pytest.raises(InputError, match="has the sentence-transformers module Dense"):
        TextEncoder.load(str(save_sentence_transformer(tmp_path / "b", module="Dense")))
    with pytest.raises(InputError, match="does not exist"):
        TextEncoder.load("./no/such/encoder")


def test_a_pooling_that_cannot_be_looked_up_is_told(monkeypatch):
    def unreachable(*_):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(text_encoder, "hf_hub_download", unreachable)
    with pytest.warns(InputWarning, match=r"modules.json could not be looked up"):
        assert text_encoder.declared_pooling("some-org/some-model", "some-org/some-model") is None
