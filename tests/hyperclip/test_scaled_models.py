"""Scalings on whole models of each family: exact, saved, loaded, folded, taken off."""

import json
import warnings

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from geodapt.errors import InputError, InputWarning
from geodapt.files import read_tensors
from geodapt.hyperclip import Scaling, ScalingSettings, scale
from tests.hyperclip.towers import FAMILIES, model, outputs

EVERY = pytest.mark.parametrize("family", FAMILIES)
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


def scaled(base, std=0.05, **settings):
    """A scaling of a model, away from the identity."""
    made = scale(base, ScalingSettings(**{"block": 8, **settings}))
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=std)
    return made


@EVERY
@torch.no_grad()
def test_identity_at_first_and_base_after_detaching(family):
    base = model(family).requires_grad_(False)  # SigLIP's pooling computes otherwise, if it may
    names, before = list(base.state_dict()), outputs(base)
    for form in ("activation", "weight", "auto"):
        scaling = scale(base, ScalingSettings(block=8, form=form))
        assert torch.equal(outputs(base), before)
        assert list(base.state_dict()) == names
        assert len(scaling.places) == 2 * 2 * 3
        assert sum(p.numel() for p in scaling.parameters()) == 2 * 3 * 8 * (
            base.config.text_config.hidden_size + base.config.vision_config.hidden_size
        )
        for parameter in scaling.parameters():
            parameter.fill_(0.1)
        assert not torch.allclose(outputs(base), before)
        scaling.detach()
        assert torch.equal(outputs(base), before)


@EVERY
@torch.no_grad()
def test_saved_loaded_and_folded_give_what_was_tuned(family, tmp_path):
    base = model(family)
    scaling = scaled(base)
    tuned = outputs(base)
    scaling.save_pretrained(tmp_path / "tuned")
    other = model(family)
    loaded = Scaling.load(other, tmp_path / "tuned")
    assert torch.equal(outputs(other), tuned)
    loaded.fold()
    assert not loaded.attached
    torch.testing.assert_close(outputs(other), tuned, **CLOSE)
    assert all("forward" not in module.__dict__ for module in other.modules())
    with pytest.raises(InputError, match="or it is folded into them already"):
        Scaling.load(other, tmp_path / "tuned")


@EVERY
@torch.no_grad()
def test_the_mobius_form_folds_into_what_its_clamps_make(family):
    base = model(family)
    scaling = scaled(base, std=0.3, form="mobius", curvature=400.0)
    tuned = outputs(base)
    plain = model(family)
    scaled(plain, std=0.3).fold()
    assert not torch.allclose(outputs(plain), tuned, rtol=1e-3)
    scaling.fold()
    torch.testing.assert_close(outputs(base), tuned, **CLOSE)


@EVERY
def test_forms_train_alike(family):
    found = {}
    for form in ("activation", "weight", "mobius"):
        base = model(family)
        base = getattr(base, "clip", base)  # CLIPSeg runs its CLIP without gradients
        scaling = scaled(base, form=form)
        outputs(base).square().sum().backward()
        assert all(p.grad is None for p in base.parameters())
        found[form] = torch.cat([p.grad.flatten() for p in scaling.parameters()])
    assert found["weight"].abs().max() > 0
    torch.testing.assert_close(found["weight"], found["activation"], rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(found["mobius"], found["activation"], rtol=1e-8, atol=1e-12)


def test_file_names_the_layers_from_their_tower_on(tmp_path):
    base = model("owlv2")
    scaling = scaled(base, towers=["text"], matrices=["query"], layers=[1])
    scaling.save_pretrained(tmp_path)
    tensors = read_tensors(tmp_path / "hyperclip.safetensors")
    name = "text_model.encoder.layers.1.self_attn.q_proj.delta"
    assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == {name: (4, 8, 8)}
    config = json.loads((tmp_path / "hyperclip_config.json").read_text())
    assert config["settings"]["layers"] == [1]
    assert len(config["base_sha256"]) == 64


def test_a_scaling_serves_every_class_with_its_towers(tmp_path):
    """CLIPSeg's CLIP with a CLIP's weights is the same base."""
    base, seg = model("clip"), model("clipseg")
    seg.clip.load_state_dict(base.state_dict(), strict=False)
    scaled(base).save_pretrained(tmp_path)
    assert Scaling.load(seg, tmp_path).attached


def test_layers_towers_and_inert_matrices():
    def places(**settings):
        base = model()
        return scale(base, ScalingSettings(block=4, **settings)).places

    assert len(places(layers=[0])) == 6
    assert len(places(layers={"image": [1]})) == 9
    assert len(places(towers=["image"], matrices=["value"])) == 2
    dense = places(dense=True)
    assert len(dense) == 10
    assert "vision_model.encoder.layers.1.self_attn.v_proj" in dense
    assert "vision_model.encoder.layers.1.self_attn.q_proj" not in dense
    assert "vision_model.encoder.layers.1.self_attn.k_proj" not in dense


@pytest.mark.parametrize("form", ["activation", "weight"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(form, reentrant):
    found = []
    for checkpointing in (False, True):
        base = model("siglip")
        scaling = scaled(base, form=form)
        base.train()
        if checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": reentrant})
            if reentrant:  # needs an input that requires gradients
                embeddings = base.vision_model.embeddings
                embeddings.register_forward_hook(lambda *_: _[-1].requires_grad_())
                words = base.text_model.embeddings
                words.register_forward_hook(lambda *_: _[-1].requires_grad_())
        outputs(base).square().sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in scaling.parameters()]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["activation", "weight", "auto"])
def test_compiled_is_eager(form):
    torch._dynamo.reset()
    base = model("clip")
    scaling = scaled(base, form=form)
    eager = outputs(base)
    eager.square().sum().backward()
    gradients = [p.grad.clone() for p in scaling.parameters()]
    scaling.zero_grad()
    compiled = torch.compile(base, backend="aot_eager")
    found = outputs(compiled)
    torch.testing.assert_close(found, eager, **CLOSE)
    found.square().sum().backward()
    for own, expected in zip(scaling.parameters(), gradients, strict=True):
        torch.testing.assert_close(own.grad, expected, rtol=1e-8, atol=1e-12)


def test_bfloat16_autocast_keeps_the_scalings_in_float32():
    base = model(dtype=torch.float32)
    scaling = scaled(base, std=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        tuned = outputs(base)
        tuned.float().square().sum().backward()
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in scaling.parameters())
    scaling.detach()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(outputs(base), tuned)


@torch.no_grad()
def test_bfloat16_base_takes_the_float32_scaling(tmp_path):
    scaled(model(dtype=torch.float32)).save_pretrained(tmp_path)
    base = model(dtype=torch.float32).bfloat16()
    loaded = Scaling.load(base, tmp_path)
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outputs(base)
    half = model(dtype=torch.float32).half()
    with pytest.warns(InputWarning, match="could not be compared"):
        Scaling.load(half, tmp_path)


class Quantized(nn.Linear):
    """A layer whose weight holds integers, as bitsandbytes' have it."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, dtype=linear.weight.dtype)
        self.bias = linear.bias
        self.step = linear.weight.detach().abs().max() / 127
        levels = (linear.weight.detach() / self.step).round().to(torch.int8)
        self.weight = nn.Parameter(levels, requires_grad=False)

    def forward(self, h):
        return nn.functional.linear(h, self.weight.to(h.dtype) * self.step, self.bias)


@torch.no_grad()
def test_quantized_weights_are_scaled_on_activations_and_not_folded(tmp_path):
    base = model()
    layer = base.vision_model.encoder.layers[0].self_attn
    layer.v_proj = Quantized(layer.v_proj)
    before, weights = outputs(base), [p.clone() for p in base.parameters()]
    scaling = scaled(base, form="auto")
    assert not torch.allclose(outputs(base), before)
    with pytest.raises(InputError, match=r"layers.0.self_attn.v_proj is quantized"):
        scaling.fold()
    assert all(map(torch.equal, base.parameters(), weights))
    scaling.detach()
    with pytest.raises(InputError, match="set form to 'activation'"):
        scale(base, ScalingSettings(block=8, form="weight"))


def test_another_base_is_refused(tmp_path):
    base = model()
    scaled(base).save_pretrained(tmp_path)
    with torch.no_grad():
        base.text_model.encoder.layers[0].self_attn.k_proj.weight[0, 0] += 1
    with pytest.raises(InputError, match="scales another base"):
        Scaling.load(base, tmp_path)
    with pytest.raises(InputError, match=r"does not fit: text_model.+has shape \(4, 8, 8\)"):
        Scaling.load(model("siglip"), tmp_path)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"block": 5}, "layers.0.self_attn.k_proj: blocks of 5 do not divide a width of 32"),
        ({"layers": [2]}, "the text tower has no layer 2; its layers are 0 to 1"),
        ({"layers": {"image": [-1]}}, "the image tower has no layer -1"),
        ({"layers": []}, "choose no projection"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_the_model_alone(settings, expected):
    base = model()
    before = outputs(base)
    with pytest.raises(InputError, match=expected):
        scale(base, ScalingSettings(**{"block": 8, **settings}))
    assert torch.equal(outputs(base), before)
    assert all(p.requires_grad for p in base.parameters())


@pytest.mark.parametrize("settings", [{"matrices": ["out"]}, {"towers": ["text", "text"]}])
def test_settings_out_of_range(settings):
    with pytest.raises(ValidationError):
        ScalingSettings(**settings)


def test_models_without_such_layers_are_refused(bert):
    with pytest.raises(
        InputError, match=r"a BertModel has no layers text_model.+linear layers are"
    ):
        scale(bert)


def test_a_model_is_scaled_once_at_a_time():
    base = model()
    first = scale(base, ScalingSettings(block=8))
    with pytest.raises(InputError, match="scaled already"):
        scale(base, ScalingSettings(block=8))
    first.detach()
    scale(base, ScalingSettings(block=8)).fold()
    with pytest.raises(InputError, match="not on the model"):
        first.fold()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{", "not valid JSON"), ('{"settings": {"block": "x"}}', "settings.block")],
)
def test_broken_files_are_refused(tmp_path, text, expected):
    scaled(model()).save_pretrained(tmp_path)
    (tmp_path / "hyperclip_config.json").write_text(text)
    with pytest.raises(InputError, match=expected):
        Scaling.load(model(), tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        Scaling.load(model(), tmp_path / "nowhere")


def test_adapters_of_other_libraries_are_refused():
    from peft import LoraConfig, get_peft_model

    base = get_peft_model(model(dtype=torch.float32), LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(InputError, match="merge and unload adapters"):
        scale(base)
