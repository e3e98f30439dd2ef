"""Factors of which PEFT's files hold the blocks: grouped convolutions, and block-diagonal LoRA."""

import copy
import json

import pytest
import torch
from peft import BdLoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from torch import nn

from geodapt.adapters import Adapter, AdapterBank, Mix, Off, Route, TopAtoms, merge
from geodapt.errors import InputError
from tests.adapters.kinds import inputs, llama, saved, seeded
from tests.adapters.made_by_peft import output

GROUPED = [
    nn.Conv1d(4, 8, 3, groups=2, padding=1),
    nn.Conv1d(4, 4, 3, groups=4, stride=2),
    nn.Conv2d(4, 6, 1, groups=2),
    nn.Conv2d(4, 8, (3, 2), groups=4, padding="same", bias=False),
    nn.Conv3d(4, 4, 2, groups=4),
]


@pytest.mark.parametrize("layer", GROUPED)
def test_grouped_convolutions_equal_peft(layer, tmp_path):
    def build():
        return nn.Sequential(copy.deepcopy(layer), nn.Tanh()).eval()

    bank = AdapterBank(build())
    x, peft = torch.randn(3, 4, *(7 for _ in layer.kernel_size)), {}
    for seed, name in enumerate("ab"):
        folder = saved(tmp_path / name, build, seed, r=4, target_modules=["0"], use_rslora=True)
        peft[name] = PeftModel.from_pretrained(build(), folder).eval()(x)
        bank.load(name, folder)
    with bank.use(Off()):
        torch.testing.assert_close(bank.model(x), build()(x))
    for gate in (Mix({"a": 1.0}), TopAtoms(1.0, Mix({"a": 1.0}))):
        with bank.use(gate):
            torch.testing.assert_close(bank.model(x), peft["a"], atol=1e-5, rtol=1e-5)
    with bank.use(Route([None, "a", "b"])):
        wanted = torch.stack([build()(x)[0], peft["a"][1], peft["b"][2]])
        torch.testing.assert_close(bank.model(x), wanted, atol=1e-5, rtol=1e-5)
    bank.save("a", tmp_path / "again")
    one, two = (load_file(tmp_path / n / "adapter_model.safetensors") for n in ("a", "again"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_what_grouped_convolutions_cannot_do_is_refused(tmp_path):
    def build():
        return nn.Sequential(copy.deepcopy(GROUPED[0])).eval()

    bank = AdapterBank(build())
    bank.load("a", saved(tmp_path / "a", build, r=4, target_modules=["0"]))
    with pytest.raises(InputError, match=r"3 in 2 groups, and .* cannot be merged into it"):
        bank.merge_into_base({"a": 1.0})
    with pytest.raises(InputError, match="in 2 groups: a merged update would mix groups"):
        merge([bank["a"], bank["a"]])
    with pytest.raises(InputError, match="changes grouped convolutions, which the bank runs"):
        bank.train_only("a")
    plain = AdapterBank(nn.Sequential(nn.Conv1d(4, 8, 3)))
    with pytest.raises(InputError, match="3 in 2 groups for 0, where the base has a convolution"):
        plain.load("a", tmp_path / "a")
    mixed = bank["a"]
    mixed.factors["0"].B[:] = 1.0
    with pytest.raises(InputError, match="no file of PEFT can hold it"):
        mixed.save_pretrained(tmp_path / "mixed")
    folder = saved(tmp_path / "dora", build, r=4, target_modules=["0"])
    config = json.loads((folder / "adapter_config.json").read_text()) | {"use_dora": True}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors["base_model.model.0.lora_magnitude_vector"] = torch.ones(1, 8, 1)
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"rescales \(DoRA\) 0, a convolution"):
        bank.load("dora", folder)


BLOCKS = {"target_modules_bd_a": ["down_proj", "o_proj"], "target_modules_bd_b": ["q_proj", "up"]}


@pytest.mark.parametrize("strict", [True, False])
def test_block_diagonal_lora_is_read_whole(strict, tmp_path):
    told = BdLoraConfig(nblocks=2, match_strict=strict, **BLOCKS)
    targets = ["q_proj", "down_proj"] if strict else ["q_proj", "down_proj", "gate_proj"]
    folder = saved(tmp_path / "a", llama, r=4, target_modules=targets, use_bdlora=told)
    batch = inputs(llama)
    wanted = output(PeftModel.from_pretrained(seeded(llama), folder).eval(), batch)
    bank = AdapterBank(seeded(llama))
    bank.load("a", folder)
    with bank.use("a"):
        torch.testing.assert_close(output(bank.model, batch), wanted, atol=1e-5, rtol=1e-5)
    bank.save("a", tmp_path / "again")  # with whole factors, as any LoRA's
    again = PeftModel.from_pretrained(seeded(llama), tmp_path / "again").eval()
    torch.testing.assert_close(output(again, batch), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"nblocks": 3}, "does not consist of 3 blocks"),
        ({"nblocks": 10**6}, "does not consist of 1,000,000 blocks"),
        ({"nblocks": 0}, "use_bdlora is .*; expected null, or which layers have blocks"),
        ({"target_modules_bd_a": ["q_pro"]}, "both factors are block-diagonal"),
        ({"nblocks": 1}, "expected .*rank, in"),
    ],
)
def test_blocks_that_do_not_belong_are_refused(change, reason, tmp_path):
    told = BdLoraConfig(nblocks=2, **BLOCKS)
    folder = saved(tmp_path / "a", llama, r=4, target_modules=["q_proj"], use_bdlora=told)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["use_bdlora"] |= change
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=reason):
        Adapter.from_pretrained(folder)
