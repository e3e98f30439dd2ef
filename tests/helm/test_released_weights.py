"""The official models' weights give their logits here, as float64 loops have them."""

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from geodapt.errors import InputError
from geodapt.helm.released_state import read_released
from geodapt.helm.released_weights import convert_released
from tests.helm import released

MODELS = {
    "dense": (released.dense, released.dense_logits),
    "mixture": (released.mixture, released.mixture_logits),
}
IDS = [3, 17, 5, 29, 1, 11]


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_the_official_ones(name):
    draw, logits = MODELS[name]
    state = draw()
    helm = convert_released(state)
    got, expected = helm(torch.tensor([IDS])).logits[0], logits(state, IDS)
    # At position 0 nothing is turned; elsewhere cosines are float32 in every transformers model.
    torch.testing.assert_close(got[0], expected[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got, expected, rtol=2e-6, atol=2e-6)
    assert helm.config.released
    assert helm.config.max_position_embeddings == 16


def test_a_change_is_kept_where_it_has_a_defaults_value():
    state, ids = released.mixture(), torch.tensor([IDS])
    softmax = convert_released(state, scoring_func="softmax")
    assert torch.equal(softmax(ids).logits, convert_released(state)(ids).logits)
    sigmoid = convert_released(state, scoring_func="sigmoid")
    assert sigmoid.config.scoring_func == "sigmoid"
    assert not torch.allclose(sigmoid(ids).logits, softmax(ids).logits)


@pytest.mark.parametrize("name", MODELS)
def test_files_and_what_they_become(name, tmp_path, geodapt):
    state = {key: t.float() if t.is_floating_point() else t for key, t in MODELS[name][0]().items()}
    save_file(state, tmp_path / "official.safetensors")
    nested = {"global_step": 3, "model_state_dict": {f"module.{k}": t for k, t in state.items()}}
    torch.save(nested, tmp_path / "Step3.pt")
    expected = convert_released(state)(torch.tensor([IDS])).logits
    for file in ("official.safetensors", "Step3.pt"):
        done = geodapt("convert-helm", str(tmp_path / file), "--out", str(tmp_path / file[:5]))
        assert done.code == 0, done.err
        helm = AutoModelForCausalLM.from_pretrained(tmp_path / file[:5])
        assert torch.equal(helm(torch.tensor([IDS])).logits, expected)
    answer = helm.generate(torch.tensor([IDS]), max_new_tokens=4, do_sample=False)
    assert answer.shape == (1, len(IDS) + 4)


def test_what_cannot_be_held_is_refused(tmp_path):
    def refused(message, **changes):
        state = {**released.mixture(), **changes}
        with pytest.raises(InputError, match=message):
            convert_released({k: t for k, t in state.items() if t is not None})

    one = torch.tensor(1.0, dtype=torch.float64)
    refused("'layers.0.attn_res.w_y' is -1", **{"layers.0.attn_res.w_y": -one})
    refused("'layers.1.attn.wo.linear.bias' is missing", **{"layers.1.attn.wo.linear.bias": None})
    refused("1 weights have no place.*'extra.weight'", **{"extra.weight": one})
    refused("2 curvatures", **{"layers.0.attn.manifold.k": 2 * one})
    refused("no points of curvature -1", **{"embed.embedding": released.mixture()["head.weight"]})
    refused("wq_a", **{"layers.0.attn.wq_a.linear.weight": one})
    with pytest.raises(InputError, match="no weights"):
        convert_released({})
    with pytest.raises(InputError, match="is no file"):
        read_released(tmp_path / "missing.pt")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(InputError, match="cannot be read as weights alone"):
        read_released(tmp_path / "text.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="holds no state_dict"):
        read_released(tmp_path / "list.pt")
