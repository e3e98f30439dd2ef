"""Adapters that bring modules trained in full (``modules_to_save``) act with them, row by row."""

import accelerate
import pytest
import torch
import transformers as T
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainingArguments

from geodapt.adapters import Adapter, AdapterBank, Factors, Mix, Off, Route, TopAtoms
from geodapt.adapters.adapter import configure
from geodapt.errors import InputError, InputWarning
from geodapt.files import hash_tensors
from tests.adapters.families import tiny_deberta
from tests.adapters.test_adapter_paths import IDS, PICTURES, SMALL, T5, build

LABELS = {"num_labels": 3}
GPT2 = T.GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=4, pad_token_id=0, **LABELS)
DISTILBERT = T.DistilBertConfig(vocab_size=99, dim=32, hidden_dim=48, n_layers=2, n_heads=4)
# (class, its configuration, what PEFT is told)
KINDS = {
    "llama classifier": (
        "LlamaForSequenceClassification",
        T.LlamaConfig(**SMALL, pad_token_id=0, **LABELS),
        {"target_modules": ["q_proj"], "task_type": "SEQ_CLS"},
    ),
    "gpt2 classifier": (
        "GPT2ForSequenceClassification",
        GPT2,
        {"target_modules": ["c_attn"], "task_type": "SEQ_CLS"},
    ),
    "roberta classifier of two layers": (
        "RobertaForSequenceClassification",
        T.RobertaConfig(**SMALL | {"max_position_embeddings": 40}, **LABELS),
        {"target_modules": ["query", "dense"], "task_type": "SEQ_CLS"},
    ),
    "bert tagger": (
        "BertForTokenClassification",
        T.BertConfig(**SMALL, **LABELS),
        {"target_modules": ["query"], "task_type": "TOKEN_CLS"},
    ),
    "distilbert answers, and a norm": (
        "DistilBertForQuestionAnswering",
        DISTILBERT,
        {
            "target_modules": ["q_lin"],
            "task_type": "QUESTION_ANS",
            "modules_to_save": ["output_layer_norm"],
        },
    ),
    "vit classifier": (
        "ViTForImageClassification",
        T.ViTConfig(**SMALL | PICTURES, **LABELS),
        {"target_modules": ["q_proj", "query"], "modules_to_save": ["classifier"]},
    ),
    "mistral's embedding and norms": (
        "MistralForCausalLM",
        T.MistralConfig(**SMALL, num_key_value_heads=2),
        {
            "target_modules": ["q_proj"],
            "modules_to_save": ["embed_tokens", "norm"],
            "task_type": "CAUSAL_LM",
        },
    ),
    "a tied embedding alone": (
        "LlamaForCausalLM",
        T.LlamaConfig(**SMALL, tie_word_embeddings=True),
        {
            "target_modules": ["q_proj"],
            "modules_to_save": ["embed_tokens"],
            "task_type": "CAUSAL_LM",
        },
    ),
    "a tied embedding that stays tied": (
        "LlamaForCausalLM",
        T.LlamaConfig(**SMALL, tie_word_embeddings=True),
        {
            "target_modules": ["q_proj"],
            "modules_to_save": ["embed_tokens"],
            "ensure_weight_tying": True,
            "task_type": "CAUSAL_LM",
        },
    ),
    "t5's output": (
        "T5ForConditionalGeneration",
        T.T5Config(**T5, tie_word_embeddings=False),
        {"target_modules": ["q"], "modules_to_save": ["lm_head"], "task_type": "SEQ_2_SEQ_LM"},
    ),
}


def batch_for(kind: str, rows: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    if kind.startswith("ViT"):
        return {"pixel_values": torch.randn(rows, 3, 16, 16, generator=generator)}
    ids = torch.randint(3, 90, (rows, 6), generator=generator)
    return {"input_ids": ids} | ({"decoder_input_ids": ids[:, :4]} if kind.startswith("T5") else {})


@torch.no_grad()
def out(model, batch) -> torch.Tensor:
    return model(**batch)[0]


def changed(peft, seed: int):
    """Random numbers in all that PEFT would train."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in peft.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator) * 0.3
            parameter.data = noise + (1 if parameter.ndim == 1 else 0)
    return peft.eval()


def from_peft(name: str, folder, seed: int = 1):
    """An adapter with its heads as PEFT writes it, and PEFT's model."""
    kind, config, options = KINDS[name]
    peft = changed(get_peft_model(build(kind, config), LoraConfig(r=3, **options)), seed)
    peft.save_pretrained(folder)
    return peft


@pytest.fixture(params=KINDS, scope="module")
def case(request, tmp_path_factory):
    """A model's name, a bank with two adapters, and what the base and they give in PEFT."""
    kind, config, _ = KINDS[request.param]
    tmp_path = tmp_path_factory.mktemp("heads")
    batch = batch_for(kind)
    bank = AdapterBank(build(kind, config))
    wanted = {None: out(build(kind, config), batch)}
    for seed, name in enumerate("ab"):
        wanted[name] = out(from_peft(request.param, tmp_path / name, seed), batch)
        bank.load(name, tmp_path / name)
    return kind, config, batch, bank, wanted, tmp_path


def close(one, other):
    torch.testing.assert_close(one, other, atol=2e-5, rtol=2e-5)


def test_every_gate_gives_each_row_its_own_head(case):
    _, _, batch, bank, wanted, _ = case
    for gate, name in ((Mix({"a": 1.0}), "a"), (Mix({"b": 1.0}), "b"), (Off(), None)):
        with bank.use(gate):
            close(out(bank, batch), wanted[name])
        if name:
            with bank.use(TopAtoms(1.0, gate)):
                close(out(bank, batch), wanted[name])
    for route in (["a", None, "b", "a"], ["a", "a", "b", "b"], [None, "b", None, None]):
        rows = torch.stack([wanted[name][i] for i, name in enumerate(route)])
        for gate in (Route(route), TopAtoms(1.0, Route(route))):
            with bank.use(gate):
                close(out(bank, batch), rows)


def test_what_is_written_loads_in_peft_with_its_heads(case):
    kind, config, batch, bank, wanted, tmp_path = case
    bank.save("a", tmp_path / "saved")
    bank["b"].save_pretrained(tmp_path / "again")
    Adapter.from_pretrained(tmp_path / "b").save_pretrained(tmp_path / "copied")
    for folder, name in (("saved", "a"), ("again", "b"), ("copied", "b")):
        close(out(PeftModel.from_pretrained(build(kind, config), tmp_path / folder), batch),
              wanted[name])  # fmt: skip


def test_merging_into_the_base_swaps_heads_in_and_out(case):
    _, _, batch, bank, wanted, _ = case
    before = hash_tensors(bank.model.state_dict())
    heads = [bank.model.get_submodule(path) for path in bank["a"].heads]
    both = (bank.model.get_input_embeddings(), bank.model.get_output_embeddings())
    if both[1] is not None and both[0].weight is both[1].weight and {*both} & {*heads}:
        with pytest.raises(InputError, match="shares its weight with another module"):
            bank.merge_into_base({"a": 1.0})
    else:
        bank.merge_into_base({"a": 1.0})
        close(out(bank, batch), wanted["a"])
        with pytest.raises(InputError, match="merged into the base already"):
            bank.merge_into_base({"b": 1.0})
        bank.unmerge()
    assert hash_tensors(bank.model.state_dict()) == before
    with pytest.raises(InputError, match="heads cannot be mixed"):
        bank.merge_into_base({"a": 0.5, "b": 0.5})
    assert hash_tensors(bank.model.state_dict()) == before


def test_heads_are_not_mixed_nor_weighed(case):
    _, _, batch, bank, wanted, _ = case
    for gate in (
        Mix({"a": 0.5, "b": 0.5}),
        Route(["a", {"a": 0.5, "b": 0.5}]),
        TopAtoms(4, Mix({"a": 1.0, "b": 1.0})),
        TopAtoms(),
    ):
        with pytest.raises(InputError, match="'a' and 'b' each bring their own"), bank.use(gate):
            pass
    with pytest.raises(InputError, match=r"and has weight 0\.5"), bank.use(Mix({"a": 0.5})):
        pass
    bank.add("b without", bank["b"].without_heads())
    with bank.use(Mix({"a": 1.0, "b without": 0.5})):
        assert out(bank, batch).shape == wanted["a"].shape
    bank.remove("b without")


def test_adapters_may_share_one_head(tmp_path):
    from_peft("bert tagger", tmp_path / "a", 0)
    from_peft("bert tagger", tmp_path / "b", 1)
    a, b = (Adapter.from_pretrained(tmp_path / name) for name in "ab")
    kind, config, _ = KINDS["bert tagger"]
    bank = AdapterBank(build(kind, config))
    bank.add("a", a)
    bank.add("b", Adapter(b.factors, b.config, heads=a.heads))
    batch = batch_for(kind)
    with bank.use(Mix({"a": 0.5, "b": 0.5})):
        found = out(bank, batch)
    reference = AdapterBank(build(kind, config))
    reference.add("a", a.without_heads())
    reference.add("b", b.without_heads())
    reference.model.classifier.load_state_dict(a.heads["classifier"])
    with reference.use(Mix({"a": 0.5, "b": 0.5})):
        close(found, out(reference, batch))
    with pytest.raises(InputError, match="nor train together"), bank.use(Mix({"a": 1.0, "b": 1.0})):
        bank.train_only("a")


def test_a_head_on_a_base_that_lacks_it_is_left_out_with_a_warning(tmp_path):
    peft = from_peft("llama classifier", tmp_path / "a")
    kind, config, _ = KINDS["llama classifier"]
    bank = AdapterBank(build(kind, config).model)
    with pytest.warns(InputWarning, match="also changes score, which this LlamaModel"):
        bank.load("a", tmp_path / "a")
    with bank.use(Mix({"a": 1.0})), torch.no_grad():
        states = bank(input_ids=IDS).last_hidden_state
    close(states, peft.get_base_model().model(input_ids=IDS).last_hidden_state)
    bank.save("a", tmp_path / "saved")
    again = PeftModel.from_pretrained(build(kind, config), tmp_path / "saved")
    close(out(again, batch_for(kind)), out(peft, batch_for(kind)))


@pytest.mark.parametrize("name", ["mistral's embedding and norms", "a tied embedding alone"])
def test_heads_act_on_the_bare_model(name, tmp_path):
    peft = from_peft(name, tmp_path / "a")
    kind, config, _ = KINDS[name]
    bank = AdapterBank(build(kind, config).model)
    bank.load("a", tmp_path / "a")
    with bank.use(Mix({"a": 1.0})), torch.no_grad():
        found = bank(input_ids=IDS).last_hidden_state
    close(found, peft.get_base_model().model(input_ids=IDS).last_hidden_state)


def test_heads_that_do_not_fit_are_refused(tmp_path):
    kind, config, _ = KINDS["bert tagger"]
    from_peft("bert tagger", tmp_path / "a")
    other = T.BertConfig(**SMALL, num_labels=5)
    with pytest.raises(InputError, match=r"shape \(3,\), the base's is \(5,\); load the base"):
        AdapterBank(build(kind, other)).load("a", tmp_path / "a")
    weights = tmp_path / "a" / "adapter_model.safetensors"
    tensors = load_file(weights)
    bias = tensors.pop("base_model.model.classifier.bias")
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(InputError, match="without bias, which the base's Linear has"):
        AdapterBank(build(kind, config)).load("a", tmp_path / "a")
    tensors.pop("base_model.model.classifier.weight")
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(InputError, match="no tensors for classifier, which its configuration"):
        AdapterBank(build(kind, config)).load("a", tmp_path / "a")
    tensors["base_model.model.stranger.bias"] = bias
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(InputError, match="no module that its modules_to_save names"):
        Adapter.from_pretrained(tmp_path / "a")


def test_another_adapters_factors_inside_of_a_head(tmp_path):
    """One adapter brings the classifier, another changes a layer in the base's."""
    name = "roberta classifier of two layers"
    peft, (kind, config, _) = from_peft(name, tmp_path / "a"), KINDS[name]
    bank = AdapterBank(build(kind, config))
    bank.load("a", tmp_path / "a")
    factors = {"classifier.dense": Factors(torch.randn(2, 32), torch.randn(32, 2) * 0.3)}
    bank.add("b", Adapter(factors, configure(factors)))
    batch = batch_for(kind)
    alone = {"a": out(peft, batch), None: out(build(kind, config), batch)}
    with bank.use(Mix({"b": 1.0})):
        alone["b"] = out(bank, batch)
    route = ["b", "a", None, "b"]
    with bank.use(Route(route)):
        close(out(bank, batch), torch.stack([alone[n][i] for i, n in enumerate(route)]))
    with pytest.raises(InputError, match=r"'b' changes classifier\.dense, which adapter"):
        bank.set(Mix({"a": 1.0, "b": 1.0}))


@pytest.mark.parametrize("name", ["llama classifier", "vit classifier"])
def test_trainer_trains_a_classifiers_head_as_peft_does(name, tmp_path):
    kind, config, _ = KINDS[name]
    batch = batch_for(kind, 16)
    data = Dataset.from_dict(
        {key: value.tolist() for key, value in batch.items()} | {"labels": [0, 1, 2, 0] * 4}
    ).with_format("torch")

    def train(model):
        arguments = TrainingArguments(
            output_dir=str(tmp_path / "out"),
            max_steps=4,
            learning_rate=1e-2,
            per_device_train_batch_size=8,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        return Trainer(model=model, args=arguments, train_dataset=data).train().training_loss

    reference = from_peft(name, tmp_path / "start")
    for parameter_name, parameter in reference.named_parameters():
        parameter.requires_grad_("lora_" in parameter_name or "modules_to_save" in parameter_name)
    bank = AdapterBank(build(kind, config))
    bank.load("a", tmp_path / "start")
    bank.load("frozen", tmp_path / "start")
    bank.train_only("a")
    bank.set(Mix({"a": 1.0}))
    assert train(bank) == pytest.approx(train(reference), rel=1e-5)
    bank.model.eval()
    close(out(bank, batch), out(reference.eval(), batch))
    bank.train_only()
    close(out(bank, batch), out(reference, batch))
    bank.save("a", tmp_path / "trained")
    close(
        out(PeftModel.from_pretrained(build(kind, config), tmp_path / "trained"), batch),
        out(reference, batch),
    )
    with bank.use(Mix({"frozen": 1.0})):
        assert (out(bank, batch) - out(reference, batch)).abs().max() > 1e-3


def test_a_new_adapter_on_a_classifier_trains_its_head(tmp_path):
    for name, heads, task in (
        ("roberta classifier of two layers", {"classifier"}, "SEQ_CLS"),
        ("distilbert answers, and a norm", {"qa_outputs"}, "QUESTION_ANS"),
        ("vit classifier", {"classifier"}, None),
        ("mistral's embedding and norms", set(), "CAUSAL_LM"),
    ):
        kind, config, _ = KINDS[name]
        bank = AdapterBank(build(kind, config))
        bank.create("new", rank=2, targets="all-linear")
        batch = batch_for(kind)
        with bank.use(Mix({"new": 1.0})):
            close(out(bank, batch), out(build(kind, config), batch))
        assert set(bank["new"].heads) == heads
        assert bank["new"].config.task_type == task
        assert not any(path.startswith(tuple(heads or "-")) for path in bank["new"].factors)
        bank.train_only("new")
        for seed, parameter in enumerate(bank.parameters_of("new")):
            torch.manual_seed(seed)
            parameter.data.normal_(std=0.3)
        bank.set(Mix({"new": 1.0}))
        wanted = out(bank, batch)
        bank.save("new", tmp_path / "new")
        close(out(PeftModel.from_pretrained(build(kind, config), tmp_path / "new"), batch), wanted)
    bank.create("norms", rank=2, targets=["q_proj"], modules_to_save=["norm"])
    assert len(bank["norms"].heads) == 5
    with pytest.raises(InputError, match=r"modules_to_save \['score'\] match no module"):
        bank.create("wrong", modules_to_save=["score"])
    with pytest.raises(InputError, match="match only modules that train in full"):
        bank.create("wrong", targets=["lm_head"], modules_to_save=["lm_head"])


def test_masters_of_heads_are_float32_and_the_rest_takes_the_bases_type(tmp_path):
    kind, config, _ = KINDS["bert tagger"]
    from_peft("bert tagger", tmp_path / "a")
    bank = AdapterBank(build(kind, config).to(torch.bfloat16))
    bank.load("a", tmp_path / "a")
    bank.train_only("a")
    assert {p.dtype for p in bank.parameters_of("a")} == {torch.float32}
    reference = PeftModel.from_pretrained(
        build(kind, config).to(torch.bfloat16), tmp_path / "a", autocast_adapter_dtype=False
    )
    with bank.use(Mix({"a": 1.0})):
        found = bank(**batch_for(kind)).logits
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, out(reference, batch_for(kind)), atol=0.1, rtol=0.1)
    found.sum().backward()
    assert all(p.grad is not None for p in bank.parameters_of("a"))
    bank.to(torch.float32)
    bank.train_only()
    with bank.use(Mix({"a": 1.0})):
        assert out(bank, batch_for(kind)).dtype == torch.float32


def test_removing_the_last_adapter_with_a_head_lets_go_of_the_module(tmp_path):
    kind, config, _ = KINDS["bert tagger"]
    from_peft("bert tagger", tmp_path / "a")
    bank = AdapterBank(build(kind, config), capacity=1)
    bank.load("a", tmp_path / "a")
    bank.load("b", tmp_path / "a")
    for name in "abab":  # one makes room for the other
        with bank.use(Mix({name: 1.0})):
            out(bank, batch_for(kind))
    for name in "ab":
        bank.remove(name)
    assert not any("forward" in module.__dict__ for module in bank.model.modules())
    close(out(bank, batch_for(kind)), out(build(kind, config), batch_for(kind)))


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
    ("GPT2LMHeadModel", GPT2, "c_attn", "wpe", "is the same whatever the rows are"),
]


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
