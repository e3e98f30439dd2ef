"""Adapters of every kind as PEFT writes them: read, written again, merged, or refused."""

import dataclasses
import json

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file

from geodapt.adapters import Adapter, merge
from geodapt.adapters.peft_files.fields import NO_EFFECT, READ, REFUSED, check_fields
from geodapt.errors import InputError
from tests.adapters.kinds import EXPERTS, KINDS, gpt_oss, llama, mixtral, qwen, saved, tuned


@pytest.fixture(params=KINDS)
def kind(request, tmp_path):
    build, config = KINDS[request.param]
    return saved(tmp_path / "peft", build, **config)


def test_what_peft_wrote_is_written_again_tensor_by_tensor(kind, tmp_path):
    adapter = Adapter.from_pretrained(kind)
    adapter.save_pretrained(tmp_path / "again")
    wanted = {
        key: tensor
        for key, tensor in load_file(kind / "adapter_model.safetensors").items()
        if "velora" not in key  # of its backward pass
    }
    found = load_file(tmp_path / "again" / "adapter_model.safetensors")
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert torch.equal(found[key], tensor), key
    again = Adapter.from_pretrained(tmp_path / "again")
    assert again.sha256 == adapter.sha256
    assert again.kinds == adapter.kinds


@pytest.mark.parametrize("method", ["linear", "svd", "ties", "dense_blocks"])
def test_merging_any_kind_merges_its_matrices(kind, method, tmp_path):
    adapter = Adapter.from_pretrained(kind)
    if adapter.magnitudes:
        with pytest.raises(InputError, match="DoRA adapter: it rescales the base"):
            merge([adapter], method)
        return
    merged = merge([adapter, adapter], method)
    merged.save_pretrained(tmp_path / "merged")
    again = Adapter.from_pretrained(tmp_path / "merged")
    assert again.kinds == adapter.kinds
    for path, factors in again.factors.items():
        torch.testing.assert_close(factors.delta(), merged.factors[path].delta())
        if method == "linear":
            torch.testing.assert_close(factors.delta(), adapter.factors[path].delta())


def test_experts_are_laid_out_as_peft_lays_them_out(tmp_path):
    """Against the update that PEFT itself adds to the parameter."""
    for build in (mixtral, qwen, gpt_oss):
        model = tuned(build, target_modules=[], target_parameters=EXPERTS)
        model.save_pretrained(tmp_path / build.__name__)
        adapter = Adapter.from_pretrained(tmp_path / build.__name__)
        for name, module in model.named_modules():
            if hasattr(module, "parameter_name"):
                path = name.removeprefix("base_model.model.").replace(".base_layer", "")
                delta = module.get_delta_weight("default")
                for i, wanted in enumerate(delta):
                    found = adapter.factors[f"{path}.{module.parameter_name}[{i}]"].delta()
                    if build is gpt_oss:  # stored (in, out)
                        found = found.T
                    torch.testing.assert_close(found, wanted)


def test_every_field_of_the_configuration_is_decided():
    """A newer PEFT's new fields are noticed here, and refused where they are set."""
    fields = {field.name for field in dataclasses.fields(LoraConfig)}
    assert fields <= READ | NO_EFFECT | REFUSED.keys(), "decide these"
    assert not READ & NO_EFFECT
    assert not (READ | NO_EFFECT) & REFUSED.keys()


def test_unknown_settings_are_refused_and_defaults_are_not():
    check_fields("toys", LoraConfig().to_dict())
    for key in REFUSED:
        with pytest.raises(InputError, match=f"adapter 'toys' sets {key}=1: .*merge_and_unload"):
            check_fields("toys", {key: 1})
    with pytest.raises(InputError, match="does not know this setting"):
        check_fields("toys", {"from_the_future": "x"})


def test_parameters_that_cannot_be_told_apart_are_refused(tmp_path):
    folder = saved(tmp_path / "peft", mixtral, target_modules=[], target_parameters=EXPERTS)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    for names in (["mlp.experts.gate_up_proj"], ["experts.one", "experts.two"]):
        path.write_text(json.dumps(config | {"target_parameters": names}))
        with pytest.raises(InputError, match="do not say which parameter each is for"):
            Adapter.from_pretrained(folder)
    path.write_text(json.dumps(config | {"r": 4}))
    with pytest.raises(InputError, match=r"expected \(matrices \* 4, in\)"):
        Adapter.from_pretrained(folder)


def test_copies_of_the_base_are_kept(tmp_path):
    adapter = Adapter.from_pretrained(saved(tmp_path / "a", llama, target_modules=["lm_head"]))
    assert adapter.copies.keys() == {"lm_head.weight"}
    other = Adapter.from_pretrained(saved(tmp_path / "b", llama, 1, target_modules=["lm_head"]))
    assert merge([adapter, other]).copies.keys() == {"lm_head.weight"}
    trained = dataclasses.replace(
        other, copies={"lm_head.weight": 2 * adapter.copies["lm_head.weight"]}
    )
    with pytest.raises(InputError, match=r"different weights of the base's lm_head\.weight"):
        merge([adapter, trained])
