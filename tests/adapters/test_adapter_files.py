"""Adapter folders: what is read, what is written, and what is refused before anything happens."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaModel

from geodapt.adapters import Adapter, AdapterBank, Factors, Mix, Route
from geodapt.adapters.peft_files import peft_format
from geodapt.adapters.peft_files.configuration import configure
from geodapt.errors import InputError
from geodapt.files import hash_tensors
from tests.adapters.made_by_peft import inputs, output, peft_model, randomise, seeded

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture
def folder(tmp_path, peft_folder):
    return peft_folder(peft_model("llama", ("toys",)))("toys")


def change_config(folder, **values):
    content = json.loads((folder / CONFIG).read_text()) | values
    (folder / CONFIG).write_text(json.dumps(content))


def change_weights(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def test_reading_and_writing_gives_the_same_adapter(folder, tmp_path):
    adapter = Adapter.from_pretrained(folder)
    assert adapter.rank == 4
    assert adapter.targets == ["q_proj", "v_proj"]
    assert adapter.parameters == sum(t.numel() for t in load_file(folder / WEIGHTS).values())
    whole = [f.scale * f.B.double() @ f.A.double() for f in adapter.factors.values()]
    assert adapter.norm() == pytest.approx(sum(d.square().sum() for d in whole) ** 0.5)
    adapter.save_pretrained(tmp_path / "again")
    assert Adapter.from_pretrained(tmp_path / "again").sha256 == adapter.sha256
    adapter.save_pretrained(tmp_path / "again")  # over an old one
    changed = Adapter(
        {k: f._replace(scale=3.0) for k, f in adapter.factors.items()}, adapter.config
    )
    assert changed.sha256 != adapter.sha256


def test_saving_beside_other_files_leaves_them_alone(folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    Adapter.from_pretrained(folder).save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "kept"


@pytest.mark.parametrize("place", ["folder", "link"])
def test_saving_over_an_adapter_is_all_or_nothing(folder, tmp_path, monkeypatch, place):
    old = Adapter.from_pretrained(folder)
    new = Adapter({k: f._replace(scale=f.scale * 2) for k, f in old.factors.items()}, old.config)
    new = Adapter(new.factors, configure(new.factors, new))
    target = folder
    if place == "link":
        target = tmp_path / "link"
        target.symlink_to(folder)
    (folder / "more").mkdir()
    (folder / "more" / "notes.txt").write_text("kept")
    for name in ("write_tensors", "write_json", "_write_card"):  # killed at each

        def killed(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(peft_format, name, killed)
            with pytest.raises(KeyboardInterrupt):
                new.save_pretrained(target)
        assert Adapter.from_pretrained(target).sha256 == old.sha256
    new.save_pretrained(target)
    assert Adapter.from_pretrained(target).sha256 == new.sha256
    assert (folder / "more" / "notes.txt").read_text() == "kept"
    assert not list(tmp_path.rglob("*.unfinished"))


def test_saving_into_the_working_folder_leaves_no_mixture(folder, monkeypatch):
    """A process's own folder cannot be exchanged under it."""
    monkeypatch.chdir(folder)
    old = Adapter.from_pretrained(".")
    with monkeypatch.context() as patch:
        patch.setattr(peft_format, "write_json", None)
        with pytest.raises(TypeError):
            old.save_pretrained(".")
    with pytest.raises(InputError, match=r"adapter_config\.json does not exist"):
        Adapter.from_pretrained(".")
    old.save_pretrained(".")
    assert Adapter.from_pretrained(".").sha256 == old.sha256


def test_where_an_adapter_cannot_be_written_is_said(folder, tmp_path):
    adapter = Adapter.from_pretrained(folder)
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "inside", "/proc/toys", "n" * 300, ""):
        with pytest.raises(InputError, match=r"is a file|cannot be|is empty"):
            adapter.save_pretrained(place)


REFUSED_CONFIGS = [
    ({"lora_bias": True}, "lacks what lora_bias stands for"),
    ({"trainable_token_indices": [1, 2]}, "lacks what trainable_token_indices stands for"),
    ({"layer_replication": [[0, 2]]}, "repeated layers"),
    ({"alora_invocation_tokens": [3]}, "invocation sequence"),
    ({"some_new_field": 3}, "some_new_field=3"),
    ({"init_lora_weights": "pissa_niter_4"}, "also changed the base weights"),
    ({"peft_type": "IA3"}, "peft_type 'IA3'; geodapt reads LORA"),
    ({"r": 5}, "rank 4, its adapter_config.json says 5"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED_CONFIGS)
def test_what_is_not_plain_lora_is_refused_with_the_reason(folder, values, message):
    change_config(folder, **values)
    with pytest.raises(InputError, match=message):
        Adapter.from_pretrained(folder)


def _nan(tensors):
    next(iter(tensors.values()))[0, 0] = torch.nan


def _half(tensors):
    del tensors[next(key for key in tensors if "lora_B" in key)]


def _embedding(tensors):
    tensors["base_model.model.model.embed_tokens.lora_embedding_A"] = torch.zeros(2, 3)


def _stray(tensors):
    tensors["base_model.model.model.norm.weight"] = torch.zeros(3)


def _shape(tensors):
    key = next(key for key in tensors if "lora_B" in key)
    tensors[key] = tensors[key][:, :2].contiguous()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_nan, "NaN"),
        (_half, "lacks .*lora_B.weight"),
        (_embedding, "lacks .*lora_embedding_B"),
        (_stray, "no LoRA factor"),
        (_shape, r"expected \(rank, in\) and \(out, rank\)"),
        (lambda tensors: tensors.clear(), "no LoRA factors"),
    ],
)
def test_broken_weights_are_refused(folder, change, message):
    change_weights(folder, change)
    with pytest.raises(InputError, match=message):
        Adapter.from_pretrained(folder)


def test_broken_folders_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="not a folder"):
        Adapter.from_pretrained(tmp_path / "absent")
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:100])
    with pytest.raises(InputError, match="safetensors"):
        Adapter.from_pretrained(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(InputError, match=r"has no adapter_model\.safetensors"):
        Adapter.from_pretrained(folder)
    torch.save({}, folder / "adapter_model.bin")
    with pytest.raises(InputError, match="pickle"):
        Adapter.from_pretrained(folder)
    (folder / CONFIG).write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        Adapter.from_pretrained(folder)


def test_adapters_that_do_not_fit_are_refused_and_leave_no_trace(folder):
    bank = AdapterBank(seeded("llama"))
    adapter = Adapter.from_pretrained(folder)
    wide = {k: Factors(torch.randn(4, 48), f.B, 1.0) for k, f in adapter.factors.items()}
    tall = {k: Factors(f.A, torch.randn(99, 4), 1.0) for k, f in adapter.factors.items()}
    renamed = {k.replace("layers", "blocks"): f for k, f in adapter.factors.items()}
    some = dict(list(adapter.factors.items())[:1])
    for factors, message in [
        (wide, "targets q_proj with in_features 48, the base has 32 .*another model"),
        (tall, "with out_features 99, the base has"),
        (renamed, "does not have as a linear layer"),
        (some, "has no factors for model.layers.0.self_attn.v_proj and 2 more layers"),
    ]:
        with pytest.raises(InputError, match=message):
            bank.add("toys", Adapter(factors, adapter.config))
    assert bank.names == []
    assert not any("forward" in module.__dict__ for module in bank.model.modules())


def test_names_are_checked(folder):
    bank = AdapterBank(seeded("llama"))
    bank.load("toys", folder)
    with pytest.raises(InputError, match="already has an adapter 'toys'"):
        bank.load("toys", folder)
    with pytest.raises(InputError, match="no adapter 'tools' in the bank; it has toys"):
        bank["tools"]
    with pytest.raises(InputError, match="no adapter 'tools'"), bank.use(Mix({"tools": 1.0})):
        pass
    with pytest.raises(InputError, match=r"match no linear layer .*q_proj"):
        bank.create("new", targets=["qproj"])
    for options in ({"rank": 0}, {"dropout": 1.0}):
        with pytest.raises(InputError):
            bank.create("new", **options)


def test_a_base_without_the_task_head_takes_the_same_adapter(folder):
    model = seeded("llama")
    whole, headless = AdapterBank(model), LlamaModel(model.config).eval()
    headless.load_state_dict(model.model.state_dict())
    bare = AdapterBank(headless)
    batch = inputs("llama", 2)
    for bank in (whole, bare):
        bank.load("toys", folder)
    with whole.use(Mix({"toys": 1.0})), bare.use(Mix({"toys": 1.0})):
        wanted = model(**batch, output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(output(headless, batch), wanted.detach())


def test_another_base_is_refused_and_another_path_is_not(tmp_path):
    model = seeded("llama")
    model.save_pretrained(tmp_path / "base")
    bank = AdapterBank(AutoModelForCausalLM.from_pretrained(tmp_path / "base"))
    bank.create("toys", rank=2, targets=["q_proj"])
    bank.save("toys", tmp_path / "toys")
    (tmp_path / "base").rename(tmp_path / "moved")
    for dtype in (torch.float32, torch.bfloat16):  # nor is another float type another base
        same = AutoModelForCausalLM.from_pretrained(tmp_path / "moved", dtype=dtype)
        AdapterBank(same).load("toys", tmp_path / "toys")
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight[0, 0] += 1
    model.save_pretrained(tmp_path / "other")
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match="whose weights differ"):
        AdapterBank(other).load("toys", tmp_path / "toys")


def test_layers_that_are_stored_transposed(tmp_path):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    base = GPT2LMHeadModel(config).eval()
    start = {k: v.clone() for k, v in base.state_dict().items()}
    reference = get_peft_model(
        base, LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    )
    randomise(reference)
    reference.save_pretrained(tmp_path / "toys")
    ours = GPT2LMHeadModel(config).eval()
    ours.load_state_dict(start)
    bank = AdapterBank(ours)
    bank.load("toys", tmp_path / "toys")
    batch = {"input_ids": torch.arange(12).view(2, 6)}
    wanted = output(reference.eval(), batch)
    for gate in (Mix({"toys": 1.0}), Route(["toys", "toys"])):
        with bank.use(gate):
            torch.testing.assert_close(output(ours, batch), wanted, atol=1e-5, rtol=1e-5)
    bank.merge_into_base({"toys": 1.0})
    torch.testing.assert_close(output(ours, batch), wanted, atol=1e-5, rtol=1e-5)
    bank.unmerge()
    assert hash_tensors(ours.state_dict()) == hash_tensors(start)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unmerging_gives_the_identical_bits(dtype, folder):
    model = seeded("llama").to(dtype)
    before = hash_tensors(model.state_dict())
    bank = AdapterBank(model)
    bank.load("toys", folder)
    batch = inputs("llama", 2)
    with bank.use(Mix({"toys": -0.7})):
        wanted = output(model, batch)
    for _ in range(3):
        bank.merge_into_base({"toys": -0.7})
        assert hash_tensors(model.state_dict()) != before
        tolerance = {"atol": 0.1, "rtol": 0.1} if dtype == torch.bfloat16 else {}
        torch.testing.assert_close(output(model, batch), wanted, **tolerance)
        with pytest.raises(InputError, match="merged into the base already"):
            bank.merge_into_base({"toys": 1.0})
        bank.unmerge()
        assert hash_tensors(model.state_dict()) == before


def test_a_shared_weight_is_not_merged_into():
    model = seeded("llama")
    model.config.tie_word_embeddings = True
    model.lm_head.weight = model.model.embed_tokens.weight
    bank = AdapterBank(model)
    factors = {"lm_head": Factors(torch.randn(2, 32), torch.randn(100, 2))}
    bank.add("toys", Adapter(factors, configure(factors)))
    with pytest.raises(InputError, match=r"shares its weight with model\.embed_tokens"):
        bank.merge_into_base({"toys": 1.0})


@pytest.mark.parametrize(
    "make",
    [
        lambda: Route([]),
        lambda: Route("toys"),
        lambda: Route([3]),
        lambda: Mix({"toys": float("nan")}),
        lambda: Mix({"toys": "much"}),
    ],
)
def test_wrong_gates_are_refused(make):
    with pytest.raises(InputError):
        make()


def test_a_route_of_the_wrong_length_is_refused(folder):
    bank = AdapterBank(seeded("llama"))
    bank.load("toys", folder)
    with (
        pytest.raises(InputError, match=r"route has 3 entries, the batch of \w+ 4 rows"),
        bank.use(Route(["toys", None, "toys"])),
    ):
        bank(**inputs("llama", 4))
