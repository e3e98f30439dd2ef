"""Adapter folders of any content: right, or one sentence, at once."""

import math
import os
import resource
import shutil
import sys
import time

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file

from geodapt.adapters import Adapter, AdapterBank, Mix, merge
from geodapt.adapters.peft_files import safe_regex
from geodapt.errors import InputError
from tests.adapters import mutations
from tests.adapters.made_by_peft import inputs, output, randomise, seeded
from tests.adapters.mutations import TENSORS, changing, setting, setting_text

TARGETS = {"llama": ["q_proj", "v_proj"], "bert": ["query", "key"], "t5": ["q", "wo"]}
ROUNDS = int(os.environ.get("GEODAPT_FUZZ", "1"))
"""How much is tried: ``make fuzz`` tries all, and much more at random."""
SECONDS = 20.0
"""Processor time that one folder may take, many times what it takes."""


@pytest.fixture
def saved(tmp_path):
    """A family's adapter as PEFT saves it, mutated."""

    def make(family, mutate):
        if not (tmp_path / family).exists():
            torch.manual_seed(0)
            config = LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS[family])
            model = get_peft_model(seeded(family), config)
            randomise(model)
            model.save_pretrained(tmp_path / family)
        folder = tmp_path / "mutated"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / family, folder)
        mutate(folder)
        return folder

    return make


def attempt(folder, family):
    """The model's output under a folder's adapter, or the sentence that refuses it.

    Reads it, uses it and merges it. Anything but an InputError is passed on, and what is not
    finite fails.
    """
    start = time.thread_time()
    try:
        adapter = Adapter.from_pretrained(folder)
        bank = AdapterBank(seeded(family))
        bank.add("it", adapter)
        with bank.use(Mix({"it": 1.0})):
            found = output(bank.model, inputs(family, 2))
        assert found.isfinite().all()
        for method in ("cat", "svd"):
            merged = merge([adapter], method)
            assert all(math.isfinite(factors.norm()) for factors in merged.factors.values())
        return found
    except InputError as error:
        return str(error)[:1500]
    finally:
        assert time.thread_time() - start < SECONDS


@pytest.mark.slow
def test_no_value_gives_a_traceback_or_takes_long(saved, monkeypatch):
    """All mutations of each family with ``make fuzz``; otherwise each gets a sixth."""
    monkeypatch.setattr(safe_regex, "SECONDS", 0.2)
    families = list(TARGETS)
    good = {family: attempt(saved(family, lambda folder: None), family) for family in families}
    for family in families:
        for i, (name, mutate) in enumerate(mutations.crafted(TARGETS[family][0])):
            if ROUNDS == 1 and i % 6 != families.index(family):
                continue
            folder = saved(family, mutate)
            found = attempt(folder, family)
            if isinstance(found, str) or torch.equal(found, good[family]):
                continue
            if ": pattern " not in name:  # from which PEFT would not come back
                check_as_peft(folder, family, found, name)


def check_as_peft(folder, family, found, name):
    """What was read and is not the folder as it was, PEFT reads too."""
    peft = PeftModel.from_pretrained(seeded(family), folder).eval()
    wanted = output(peft, inputs(family, 2))
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("family", TARGETS)
def test_no_change_of_bytes_gives_a_traceback(saved, family):
    good = attempt(saved(family, lambda folder: None), family)
    different = 0
    for seed in range(30 * ROUNDS):
        folder = saved(family, mutations.at_random(seed))
        found = attempt(folder, family)
        if not isinstance(found, str) and not torch.equal(found, good) and different < 5 * ROUNDS:
            different += 1
            check_as_peft(folder, family, found, f"seed {seed}")


@pytest.mark.slow
def test_no_value_puts_a_line_of_its_own_into_a_refusal(saved):
    folder = saved("llama", mutations.setting("task_type", "CAUSAL_LM\nerror: none"))
    with pytest.raises(InputError) as refused:
        Adapter.from_pretrained(folder)
    assert str(refused.value).count("\n") == 0


@pytest.mark.slow
def test_large_headers_are_refused_at_once_in_little_memory(saved):
    for name, mutate in mutations.large():
        folder = saved("llama", mutate)
        start, before = time.thread_time(), peak_memory()
        with pytest.raises(InputError):
            Adapter.from_pretrained(folder)
        assert time.thread_time() - start < SECONDS, name
        size = (folder / mutations.WEIGHTS).stat().st_size
        assert peak_memory() - before < size + 50e6, name


def peak_memory() -> float:
    """Bytes that this process has ever had in memory at once."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def test_a_large_adapter_takes_memory_for_its_file_and_little_more(saved):
    wide = {
        f"base_model.model.a.lora_{side}.weight": torch.zeros(shape)
        for side, shape in (("A", (16, 800_000)), ("B", (800_000, 16)))
    }

    def mutate(folder):
        mutations.setting("target_modules", ["a"])(folder)
        mutations.setting("r", 16)(folder)
        save_file(wide, folder / mutations.WEIGHTS)

    folder = saved("llama", mutate)
    size = (folder / mutations.WEIGHTS).stat().st_size
    before = peak_memory()
    Adapter.from_pretrained(folder)
    assert peak_memory() - before < 2 * size


SENTENCES = [
    (setting("lora_alpha", None), r"lora_alpha is null; expected a finite number"),
    (setting("lora_alpha", "16"), r"lora_alpha is '16'; expected a finite number"),
    (setting("lora_alpha", True), r"lora_alpha is True; expected a finite number"),
    (setting("lora_alpha", 10**400), r"lora_alpha is a whole number of more than 40 digits"),
    (setting_text("lora_alpha", "NaN"), r"not valid JSON: NaN is not a finite number"),
    (setting_text("something", "1e999"), r"not valid JSON: 1e999 is not a finite number"),
    (setting_text("something", "[" * 9**5), r"not valid JSON: it is nested too deep"),
    (setting("r", 0), r"r is 0; expected a whole number from 1"),
    (setting("rank_pattern", {"LAYER": 0}), r"rank_pattern is 0 at 'LAYER'; expected a mapping"),
    (setting("rank_pattern", ["LAYER"]), r"rank_pattern is \['LAYER'\]; expected a mapping"),
    (setting("alpha_pattern", {"LAYER": "big"}), r"alpha_pattern is 'big' at 'LAYER'"),
    (
        setting("alpha_pattern", {"LAYER(": 3}),
        r"alpha_pattern: the regular expression .* not valid",
    ),
    (setting("target_modules", 3), r"target_modules is 3; expected a list of layer names"),
    (
        setting("exclude_modules", [["LAYER"]]),
        r"exclude_modules is \[\['LAYER'\]\]; expected a list",
    ),
    (setting("modules_to_save", ["(a|b)*"]), r"modules_to_save is .*; expected a list of module"),
    (setting("layers_to_transform", True), r"layers_to_transform is True; expected layer numbers"),
    (setting("layers_to_transform", [1]), r"layers?[. ].*0.* which its own configuration does not"),
    (setting("exclude_modules", ["LAYER"]), r"which its own configuration does not target"),
    (
        setting("base_model_name_or_path", "n" * 10**5),
        r"base_model_name_or_path is 'nn.*at most 4,000",
    ),
    (setting("init_lora_weights", "anew"), r"initialised by 'anew', which geodapt does not know"),
    (setting("use_dora", True), r"lacks its magnitudes, and its adapter_config.json says"),
    (changing(TENSORS["float8"]), r"is of type F8_E4M3; geodapt computes with float16"),
    (changing(TENSORS["complex"]), r"is of type C64; geodapt computes with"),
    (changing(TENSORS["int8"]), r"is of type I8; geodapt computes with"),
    (changing(TENSORS["bool"]), r"is of type BOOL; geodapt computes with"),
    (changing(TENSORS["all 1e30"]), r"its update holds values of .*, which overflow in float32"),
    (changing(TENSORS["beyond float32"]), r"its update holds values of .*e\+300"),
    (changing(TENSORS["a second prefix"]), r"holds one factor twice, as "),
    (changing(TENSORS["a second name"]), r"holds one factor twice, as "),
    (
        changing(TENSORS["long names"]),
        r"characters in its name; geodapt reads names of up to 1,000",
    ),
    (changing(TENSORS["40 dimensions"]), r"has 40 dimensions; geodapt reads up to 32"),
    (changing(TENSORS["no columns"]), r"is empty"),
]


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_what_is_wrong_is_said_in_one_sentence(saved, family):
    layer = TARGETS[family][0]
    for mutate, message in SENTENCES:
        folder = saved(family, mutations.named(mutate, layer))
        with pytest.raises(InputError, match=message.replace("LAYER", layer)) as caught:
            Adapter.from_pretrained(folder)
        assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    "source",
    ["~nosuchuser/toys", "n" * 300, "d/" * 3000, "a\0b", "", "/proc/1/toys", "a//b", "é é"],
)
def test_odd_names_of_folders_are_refused(source):
    with pytest.raises(InputError, match="adapter '"):
        Adapter.from_pretrained(source)


def test_a_rank_above_the_layers_width_is_right(saved):
    """PEFT writes them: one rank for all layers, however narrow some are."""
    folder = saved("llama", changing(TENSORS["rank 100,000"]))
    mutations.setting("r", 100_000)(folder)
    adapter = Adapter.from_pretrained(folder)
    ((path, factors),) = adapter.factors.items()
    wanted = torch.linalg.matrix_norm(factors.delta().double()).item()
    assert adapter.norm() == pytest.approx(wanted)
    merged = merge([adapter], "svd", rank=4)
    assert merged.factors[path].norm() == pytest.approx(wanted, rel=1e-4)  # float32


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
@pytest.mark.parametrize("size", [1e-9, 1.0, 1e6])
def test_factors_that_a_narrow_base_cannot_hold_act_as_in_peft(saved, family, dtype, size):
    def mutate(tensors):
        return {k: t * size if "lora_A" in k else t / size for k, t in tensors.items()}

    folder = saved(family, changing(mutate))
    wanted = output(PeftModel.from_pretrained(seeded(family), folder).eval(), inputs(family, 2))
    bank = AdapterBank(seeded(family).to(dtype))
    bank.load("it", folder)
    with bank.use(Mix({"it": 1.0})):
        found = output(bank.model, inputs(family, 2)).float()
    tolerance = 0.03 if dtype == torch.float16 else 0.1
    assert (found - wanted).abs().max() < tolerance * wanted.abs().max()
