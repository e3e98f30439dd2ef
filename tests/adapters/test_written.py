"""What is written loads in PEFT on the class that its configuration names, and acts there."""

import copy
import re

import pytest
import torch
import transformers as T
from peft import (
    AutoPeftModel,
    AutoPeftModelForCausalLM,
    AutoPeftModelForSeq2SeqLM,
    AutoPeftModelForSequenceClassification,
    LoraConfig,
    PeftModel,
    get_peft_model,
)
from safetensors.torch import load_file, save_file

from geodapt.adapters import Adapter, AdapterBank, Mix, merge
from geodapt.errors import InputError
from tests.adapters.heads import KINDS, batch_for, changed, close, out
from tests.adapters.test_adapter_paths import CLIP
from tests.tiny_models import ENCODER_DECODER, PICTURES, SMALL, T5, build, tiny_deberta

# (class, configuration, what PEFT is told of one adapter, the targets of the other)
FAMILIES = {
    "seq2seq": (
        "BartForConditionalGeneration",
        T.BartConfig(**ENCODER_DECODER),
        {"target_modules": ["q_proj"], "task_type": "SEQ_2_SEQ_LM"},
        ["q_proj", "fc1"],
    ),
    "encoder": (
        "DebertaV2Model",
        tiny_deberta().config,
        {"target_modules": ["query_proj"]},
        r".*layer\.1.*(query_proj|value_proj)",
    ),
    "pictures and texts": ("CLIPModel", CLIP, {"target_modules": ["q_proj"]}, "all-linear"),
    "transposed": (*KINDS["gpt2 classifier"], ["c_attn", "c_proj"]),
    "decoder classifier": (*KINDS["llama classifier"], ["q_proj", "down_proj"]),
    "encoder classifier": (*KINDS["roberta classifier of two layers"], ["key", "output.dense"]),
    "tagger": (*KINDS["bert tagger"], ["value"]),
    "pictures": (*KINDS["vit classifier"], ["v_proj", "value", "fc1", "dense"]),
    "t5": (*KINDS["t5's output"], ["v", "wo"]),
    "norms": (*KINDS["mistral's embedding and norms"], ["down_proj"]),
}


def batch_of(kind: str) -> dict[str, torch.Tensor]:
    batch = batch_for(kind)
    if kind.startswith("Bart"):
        batch["decoder_input_ids"] = batch["input_ids"][:, :4]
    if kind.startswith("CLIP"):
        batch = {"input_ids": batch["input_ids"], "pixel_values": torch.randn(4, 3, 16, 16)}
        batch["input_ids"][:, -1] = 98
    return batch


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::geodapt.errors.InputWarning")  # a head on the bare model
@pytest.mark.parametrize("family", FAMILIES)
def test_saved_and_merged_adapters_act_in_peft(family, tmp_path):
    kind, config, options, targets = FAMILIES[family]
    batch = batch_of(kind)
    plain = {k: v for k, v in options.items() if k not in ("modules_to_save", "task_type")}
    for seed, (name, told) in enumerate(
        (("a", options), ("b", plain | {"target_modules": targets}))
    ):
        peft = get_peft_model(build(kind, config), LoraConfig(r=2 + seed, **told))
        changed(peft, seed).save_pretrained(tmp_path / name)
    whole = AdapterBank(build(kind, config))
    banks = [whole]
    part = build(kind, config).base_model
    if type(part).__name__ != kind:
        banks.append(AdapterBank(part))
    wanted = {}
    for name in "ab":
        whole.load(name, tmp_path / name)
    for gate in ({"a": 1.0}, {"b": 1.0}, {"a": 1.0, "b": 1.0}):
        with whole.use(Mix(gate)):
            wanted["".join(gate)] = out(whole, batch)
    for place, bank in enumerate(banks):
        if place:
            for name in "ab":
                bank.load(name, tmp_path / name)
        bank.save("a", tmp_path / f"{place}-a")
        bank["b"].save_pretrained(tmp_path / f"{place}-b")
        both = merge([bank["a"], bank["b"]], "linear", weights=[1.0, 1.0])
        both.save_pretrained(tmp_path / f"{place}-ab")
        merge([bank["b"], bank["a"]], "cat", weights=[1.0, 1.0]).save_pretrained(
            tmp_path / f"{place}-ba"
        )
        for name, given in wanted.items():
            again = PeftModel.from_pretrained(build(kind, config), tmp_path / f"{place}-{name}")
            close(out(again, batch), given)
        again = PeftModel.from_pretrained(build(kind, config), tmp_path / f"{place}-ba")
        close(out(again, batch), wanted["ab"])


WRAPPERS = {
    "compiled": lambda key: key.replace(".model.", ".model._orig_mod.", 1),
    "compiled around PEFT": lambda key: f"_orig_mod.{key}",
    "compiled and distributed": lambda key: f"module._orig_mod.{key}",
    "distributed": lambda key: f"module.{key}",
    "PEFT twice": lambda key: f"base_model.model.{key}",
    "checkpointed blocks": lambda key: re.sub(
        r"((layers|layer|h)\.\d+\.)", r"\1_checkpoint_wrapped_module.", key
    ),
    "sharded blocks": lambda key: re.sub(
        r"((layers|layer|h)\.\d+\.)", r"\1_fsdp_wrapped_module.", key
    ),
}


@pytest.mark.parametrize("how", WRAPPERS)
@pytest.mark.parametrize("family", ["decoder classifier", "transposed", "seq2seq"])
def test_names_that_training_wrapped_are_read_and_written_plain(how, family, tmp_path):
    kind, config, options, _ = FAMILIES[family]
    batch = batch_of(kind)
    peft = changed(get_peft_model(build(kind, config), LoraConfig(r=2, **options)), 0)
    peft.save_pretrained(tmp_path / "a")
    file = tmp_path / "a" / "adapter_model.safetensors"
    save_file({WRAPPERS[how](k): v for k, v in load_file(file).items()}, file)
    bank = AdapterBank(build(kind, config))
    bank.load("a", tmp_path / "a")
    with bank.use("a"):
        close(out(bank.model, batch), out(peft, batch))
    bank.save("a", tmp_path / "b")
    again = PeftModel.from_pretrained(build(kind, config), tmp_path / "b")
    close(out(again, batch), out(peft, batch))


@pytest.mark.slow
@pytest.mark.parametrize("targets", [["q_proj"], "all-linear"])
@pytest.mark.parametrize("wrapped", ["model", "block"])
def test_a_bank_on_what_was_compiled_writes_plain_names(wrapped, targets, tmp_path):
    torch.manual_seed(0)
    plain = T.LlamaForCausalLM(T.LlamaConfig(**SMALL)).eval()
    model = copy.deepcopy(plain)
    if wrapped == "block":
        for i, block in enumerate(model.model.layers):
            model.model.layers[i] = torch.compile(block, backend="eager")
    bank = AdapterBank(torch.compile(model, backend="eager") if wrapped == "model" else model)
    bank.create("a", rank=2, targets=targets)
    for parameter in bank.parameters_of("a"):
        parameter.data.normal_(std=0.3)
    bank.save("a", tmp_path)
    ids = torch.arange(5, 13)[None]
    with torch.no_grad(), bank.use("a"):
        wanted = bank(input_ids=ids).logits
        assert not torch.allclose(wanted, plain(input_ids=ids).logits)
        again = PeftModel.from_pretrained(plain, tmp_path)
        torch.testing.assert_close(again(input_ids=ids).logits, wanted, atol=1e-5, rtol=1e-4)


CLASSES = {
    "LlamaModel": (T.LlamaConfig(**SMALL), AutoPeftModel),
    "GPT2LMHeadModel": (
        T.GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=4),
        AutoPeftModelForCausalLM,
    ),
    "T5ForConditionalGeneration": (T.T5Config(**T5), AutoPeftModelForSeq2SeqLM),
    "RobertaForSequenceClassification": (
        T.RobertaConfig(**SMALL | {"max_position_embeddings": 40}, num_labels=3),
        AutoPeftModelForSequenceClassification,
    ),
    "ViTForImageClassification": (T.ViTConfig(**SMALL | PICTURES, num_labels=3), AutoPeftModel),
    "CLIPTextModel": (CLIP.text_config, AutoPeftModel),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLASSES)
def test_a_new_adapter_names_the_class_that_peft_then_loads(kind, tmp_path):
    config, auto = CLASSES[kind]
    build(kind, config).save_pretrained(tmp_path / "base")
    bank = AdapterBank(getattr(T, kind).from_pretrained(tmp_path / "base").eval())
    bank.create("new", rank=2)
    bank.train_only("new")
    for seed, parameter in enumerate(bank.parameters_of("new")):
        parameter.data.normal_(std=0.3, generator=torch.Generator().manual_seed(seed))
    bank.save("new", tmp_path / "new")
    with bank.use(Mix({"new": 1.0})):
        close(
            out(auto.from_pretrained(tmp_path / "new").eval(), batch_of(kind)),
            out(bank, batch_of(kind)),
        )


@pytest.fixture
def classifiers(tmp_path):
    """The folders of two classifiers' adapters, and of one that has no head."""
    kind, config, options = KINDS["llama classifier"]
    for seed, name in enumerate("ab"):
        peft = get_peft_model(build(kind, config), LoraConfig(r=2, **options))
        changed(peft, seed).save_pretrained(tmp_path / name)
    peft = get_peft_model(build(kind, config).model, LoraConfig(r=2, target_modules=["q_proj"]))
    changed(peft, 5).save_pretrained(tmp_path / "bare")
    return tmp_path


def test_heads_are_carried_over_but_never_merged(classifiers):
    kind, config, _ = KINDS["llama classifier"]
    a, b, bare = (Adapter.from_pretrained(classifiers / name) for name in ("a", "b", "bare"))
    with pytest.raises(InputError, match=r"adapter 2 of 2 and one before .* their own score"):
        merge([a, b], same_base=True)
    for given in ([a, b.without_heads()], [a, bare], [bare, a], [a, a]):
        merged = merge(given, "linear", weights=[1.0, 1.0], same_base=True)
        assert torch.equal(merged.heads["score"]["weight"], a.heads["score"]["weight"])
        assert merged.config.task_type == "SEQ_CLS"
    assert merge([a.without_heads(), b.without_heads()], same_base=True).config.task_type is None
    # One calls a block model.layers.0, the other layers.0.
    merged = merge([bare, a], "linear", weights=[1.0, 1.0], same_base=True)
    bank = AdapterBank(build(kind, config))
    for name, adapter in (("a", a), ("bare", bare), ("merged", merged)):
        bank.add(name, adapter)
    batch = batch_of(kind)
    with bank.use(Mix({"a": 1.0, "bare": 1.0})):
        wanted = out(bank, batch)
    with bank.use(Mix({"merged": 1.0})):
        close(out(bank, batch), wanted)
    merged.save_pretrained(classifiers / "merged")
    again = PeftModel.from_pretrained(build(kind, config), classifiers / "merged")
    close(out(again, batch), wanted)


def test_the_command_says_what_becomes_of_heads(classifiers, geodapt):
    a, b, to = (str(classifiers / name) for name in ("a", "b", "to"))
    result = geodapt("merge", a, b, "--same-base", "--out", to)
    assert result.code == 2
    assert "heads cannot be merged" in result.err
    result = geodapt("merge", a, b, "--same-base", "--heads", "first", "--out", to)
    assert "carried over: score" in result.out
    assert "in full    score" in geodapt("adapters", "info", to).out
    assert geodapt("merge", a, b, "--same-base", "--heads", "none", "--out", to + "2").code == 0
    assert "in full" not in geodapt("adapters", "info", to + "2").out
    assert geodapt("merge", a, b, "--same-base", "--heads", "both", "--out", to).code == 2


def test_cards_say_what_an_adapter_was_made_from(classifiers):
    a, b = (Adapter.from_pretrained(classifiers / name) for name in ("a", "bare"))
    merged = merge([a, b], "ties", weights=[0.75, 0.5], rank=2, density=0.5, same_base=True)
    merged.save_pretrained(classifiers / "merged")
    text = (classifiers / "merged" / "README.md").read_text()
    assert str(classifiers) not in text
    for line in (
        "library_name: peft",
        "# merged",
        "Trained in full beside it: score.",
        "| task | SEQ\\_CLS |",
        "| merged by | ties |",
        "| density | 0.5 |",
        f"| a | 0.75 | {a.sha256} |",
        f"| bare | 0.5 | {b.sha256} |",
    ):
        assert line in text
    kind, config, _ = KINDS["llama classifier"]
    bank = AdapterBank(build(kind, config))
    bank.add("start", a)
    bank.save("start", classifiers / "same")
    text = (classifiers / "same" / "README.md").read_text()
    assert f"| a | {a.sha256} |" in text
    assert "trained |" not in text
    bank.train_only("start")
    bank.parameters_of("start")[0].data += 1
    bank.save("start", classifiers / "same")
    text = (classifiers / "same" / "README.md").read_text()
    assert "| trained | in a bank |" in text
    assert f"| a | {a.sha256} |" in text


class Wrapper(torch.nn.Module):
    """A training script's own class around a model."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, **inputs):
        return self.model(**inputs)

    def prepare_inputs_for_generation(self, *args, **kwargs):
        return self.model.prepare_inputs_for_generation(*args, **kwargs)


WRAPPED = {
    "named by its task": ("LlamaForCausalLM", ["q_proj"], {"task_type": "CAUSAL_LM"}),
    "targets by whole paths": (
        "LlamaForCausalLM",
        r"model\.model\.layers\.0\.self_attn\.(q_proj|v_proj)",
        {"task_type": "CAUSAL_LM", "rank_pattern": {r"^model\.model.*v_proj": 3}},
    ),
    "with a head": ("BertForSequenceClassification", ["query"], {"task_type": "SEQ_CLS"}),
    "with biases": (
        "BertForSequenceClassification",
        ["query"],
        {"task_type": "SEQ_CLS", "bias": "all"},
    ),
    "named by its class": ("BertModel", ["query"], {}),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_an_adapter_trained_in_a_wrapper_loads_on_the_class_that_it_names(case, tmp_path):
    """The model's own class where that is its task's, else the wrapper."""
    kind, targets, options = WRAPPED[case]
    config = T.LlamaConfig(**SMALL) if "Llama" in kind else T.BertConfig(**SMALL)
    peft = get_peft_model(
        Wrapper(build(kind, config)), LoraConfig(r=2, target_modules=targets, **options)
    )
    changed(peft, 0).save_pretrained(tmp_path / "a")
    batch = batch_for(kind)
    bank = AdapterBank(build(kind, config))
    bank.load("a", tmp_path / "a")
    with bank.use("a"):
        close(out(bank.model, batch), out(peft, batch))
    bank.save("a", tmp_path / "saved")
    merge([bank["a"]], "linear").save_pretrained(tmp_path / "merged")
    for folder in ("saved", "merged"):
        plain = build(kind, config) if options else Wrapper(build(kind, config))
        again = PeftModel.from_pretrained(plain, tmp_path / folder).eval()
        close(out(again, batch), out(peft, batch))


def test_an_adapter_of_the_bare_model_that_names_a_task_is_saved_for_that_tasks_class(tmp_path):
    config = T.LlamaConfig(**SMALL)
    options = {"target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    bare = build("LlamaForCausalLM", config).model
    bare.prepare_inputs_for_generation = None  # which PEFT keeps for later
    peft = get_peft_model(bare, LoraConfig(r=2, **options))
    changed(peft, 0).save_pretrained(tmp_path / "a")
    bank = AdapterBank(build("LlamaForCausalLM", config))
    bank.load("a", tmp_path / "a")
    bank.save("a", tmp_path / "saved")
    again = PeftModel.from_pretrained(build("LlamaForCausalLM", config), tmp_path / "saved").eval()
    batch = batch_for("LlamaForCausalLM")
    with bank.use("a"):
        close(out(again, batch), out(bank.model, batch))


class Odd(torch.nn.Module):
    """Layers whose names mean something in a regular expression."""

    def __init__(self) -> None:
        super().__init__()
        names = ("plain", "b (x)", "c+", "d[0]", "e|f", "g-h")
        self.layers = torch.nn.ModuleDict({name: torch.nn.Linear(4, 4) for name in names})

    def forward(self, x):
        for layer in self.layers.values():
            x = torch.tanh(layer(x))
        return x


def test_ranks_of_layers_with_odd_names_are_read_again(tmp_path):
    torch.manual_seed(0)
    model, x = Odd(), torch.randn(3, 4)
    paths = [f"layers.{name}" for name in model.layers]
    for name, rank, targets in (("one", 2, paths), ("two", 1, paths[1::2])):
        config = LoraConfig(r=rank, target_modules=targets)
        changed(get_peft_model(copy.deepcopy(model), config), rank).save_pretrained(tmp_path / name)
    bank = AdapterBank(copy.deepcopy(model))
    bank.load("one", tmp_path / "one")
    bank.load("two", tmp_path / "two")
    merge([bank["one"], bank["two"]], "cat", same_base=True).save_pretrained(tmp_path / "both")
    again = AdapterBank(copy.deepcopy(model))
    again.load("both", tmp_path / "both")
    peft = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "both")
    assert peft.peft_config["default"].rank_pattern
    with torch.no_grad(), bank.use(Mix({"one": 0.5, "two": 0.5})), again.use("both"):
        torch.testing.assert_close(peft(x), bank.model(x))
        torch.testing.assert_close(again.model(x), bank.model(x))
