"""Any module as a head: compiled, offloaded, read without a call, while generating."""

import json

import accelerate
import pytest
import torch
import transformers as T
from peft import LoraConfig, PeftModel, get_peft_model

from geodapt.adapters import AdapterBank, Mix, Off, Route
from geodapt.errors import InputError
from tests.adapters.heads import GPT2, KINDS, batch_for, changed, close, from_peft, out
from tests.tiny_models import PICTURES, SMALL, T5, build, tiny_deberta


@pytest.mark.slow
def test_compiled_models_and_heads():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4)).eval()
    bank = AdapterBank(model)
    bank.create("a", rank=2, targets=["0"], modules_to_save=["1"])
    bank.train_only("a")
    for parameter in bank.parameters_of("a"):
        parameter.data.normal_()
    bank.train_only()
    x = torch.randn(4, 3, 4)
    compiled = torch.compile(bank.model, backend="eager")
    for gate in (Mix({"a": 1.0}), Off(), Route(["a", None, "a", None])):
        with bank.use(gate), torch.no_grad():
            close(compiled(x), model(x))
    assert (compiled(x) - x).abs().max() > 1e-3


@pytest.mark.parametrize(
    "kind",
    ["BertForTokenClassification", "GPT2ForSequenceClassification", "T5ForTokenClassification"],
)
def test_a_head_that_early_versions_of_peft_did_not_name(kind, tmp_path):
    task = "SEQ_CLS" if "Sequence" in kind else "TOKEN_CLS"
    config = {"G": GPT2, "T": T.T5Config(**T5)}.get(kind[0], T.BertConfig(**SMALL))
    target = {"G": "c_attn", "T": "q"}.get(kind[0], "query")
    told = LoraConfig(r=2, target_modules=[target], task_type=task)
    peft = changed(get_peft_model(build(kind, config), told), 0)
    peft.save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    content = json.loads(file.read_text())
    assert content.pop("modules_to_save")
    file.write_text(json.dumps(content))
    bank, batch = AdapterBank(build(kind, config)), {"input_ids": torch.arange(5, 9)[None]}
    bank.load("a", tmp_path)
    with bank.use("a"):
        close(out(bank, batch), out(peft, batch))
    bank.save("a", tmp_path / "again")
    close(
        out(PeftModel.from_pretrained(build(kind, config), tmp_path / "again"), batch),
        out(peft, batch),
    )


XLNET = T.XLNetConfig(vocab_size=99, d_model=32, n_layer=2, n_head=4, d_inner=48)
LLAMA = T.LlamaConfig(**SMALL)
MIXTRAL = T.MixtralConfig(**SMALL, num_key_value_heads=2, num_local_experts=4)
ANYWHERE = [
    # (class, configuration, LoRA's target, modules in full, what a route over two says)
    ("LlamaForCausalLM", LLAMA, "q_proj", "mlp", None),
    ("LlamaForCausalLM", LLAMA, "q_proj", "layers.1", "takes a tuple"),
    ("T5Model", T.T5Config(**T5), "q", "layer_norm", None),
    ("BertForMaskedLM", T.BertConfig(**SMALL), "query", "cls", None),
    ("XLNetModel", XLNET, "layer_1", "layer_norm", "does not get the batch's rows first"),
    ("MixtralForCausalLM", MIXTRAL, "q_proj", "gate", "no tensor with one row"),
    ("GPT2LMHeadModel", GPT2, "c_attn", "wpe", "does not depend on the rows"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "config", "target", "module", "refused"), ANYWHERE)
def test_any_module_in_full(kind, config, target, module, refused, tmp_path):
    told = LoraConfig(r=2, target_modules=[target], modules_to_save=[module])
    batch = batch_for(kind)
    bank = AdapterBank(build(kind, config))
    wanted = {None: out(build(kind, config), batch)}
    for seed, name in enumerate("ab"):
        peft = changed(get_peft_model(build(kind, config), told), seed)
        peft.save_pretrained(tmp_path / name)
        wanted[name] = out(peft, batch)
        bank.load(name, tmp_path / name)
    for name in "ab":
        with bank.use(Mix({name: 1.0})):
            close(out(bank, batch), wanted[name])
    with bank.use(Off()):
        close(out(bank, batch), wanted[None])
    route = ["b", None, "a", "b"]
    with bank.use(Route(route)):
        if refused:
            with pytest.raises(InputError, match=refused):
                out(bank, batch)
        else:
            close(out(bank, batch), torch.stack([wanted[n][i] for i, n in enumerate(route)]))


SIGLIP = T.SiglipVisionConfig(**SMALL | PICTURES | {"num_hidden_layers": 1})
READ = [
    ("DebertaV2Model", tiny_deberta().config, "query_proj", "rel_embeddings"),
    ("SiglipVisionModel", SIGLIP, "q_proj", "head.attention.out_proj"),
]


@pytest.mark.parametrize(("kind", "config", "target", "module"), READ)
def test_a_module_whose_weight_is_read_and_that_is_not_called(
    kind, config, target, module, tmp_path
):
    """A head there would not act: refused under a gate, and right when merged."""
    told = LoraConfig(r=2, target_modules=[target], modules_to_save=[module])
    batch = batch_for("ViT") if "Vision" in kind else batch_for(kind)
    changed(get_peft_model(build(kind, config), told), 0).save_pretrained(tmp_path / "a")
    bank = AdapterBank(build(kind, config))
    bank.load("a", tmp_path / "a")
    base = out(bank, batch)
    for _ in range(2):
        with (
            pytest.raises(InputError, match=f"does not call .*{module} but reads its weight"),
            bank.use(Mix({"a": 1.0})),
        ):
            out(bank, batch)
    close(out(bank, batch), base)
    bank.merge_into_base({"a": 1.0})
    reference = PeftModel.from_pretrained(build(kind, config), tmp_path / "a").eval()
    close(
        bank(**batch)[-1 if "Vision" in kind else 0].detach(),
        reference(**batch)[-1 if "Vision" in kind else 0].detach(),
    )
    bank.unmerge()
    bank.add("b", bank["a"].without_heads())
    with bank.use(Mix({"b": 1.0})):
        assert (out(bank, batch) - base).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["llama classifier", "mistral's embedding and norms"])
def test_heads_beside_offloaded_weights(name, tmp_path):
    kind, config, _ = KINDS[name]
    batch = batch_for(kind)
    wanted = out(from_peft(name, tmp_path / "a"), batch)
    base = out(build(kind, config), batch)
    bank = AdapterBank(accelerate.cpu_offload(build(kind, config), execution_device="cpu"))
    bank.load("a", tmp_path / "a")
    for _ in range(2):
        with bank.use(Mix({"a": 1.0})):
            close(out(bank, batch), wanted)
        with bank.use(Route(["a", None, None, "a"])):
            close(out(bank, batch), torch.stack([wanted[0], base[1], base[2], wanted[3]]))


def test_rows_generate_with_their_own_embeddings(tmp_path):
    name = "mistral's embedding and norms"
    kind, config, _ = KINDS[name]
    ids = batch_for(kind)["input_ids"]
    told = {
        "attention_mask": torch.ones_like(ids),
        "max_new_tokens": 5,
        "do_sample": False,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    bank = AdapterBank(build(kind, config))
    wanted = {}
    for seed, adapter in enumerate("ab"):
        wanted[adapter] = from_peft(name, tmp_path / adapter, seed).generate(input_ids=ids, **told)
        bank.load(adapter, tmp_path / adapter)
    with bank.use(Route(["a", "b", "b", "a"])):
        found = bank.generate(ids, **told)
    assert torch.equal(found, torch.stack([wanted[n][i] for i, n in enumerate("abba")]))
