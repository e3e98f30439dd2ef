"""An adapter acts on every class of the base that it was trained on, or is refused."""

import copy

import pytest
import torch
import transformers as T
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from geodapt.adapters import Adapter, AdapterBank, Mix, merge
from geodapt.errors import InputError, InputWarning
from tests.adapters import zoo
from tests.adapters.made_by_peft import randomise
from tests.tiny_models import PICTURES, SMALL, T5, build

IDS = torch.randint(3, 90, (2, 6), generator=torch.Generator().manual_seed(0))
CLIP = T.CLIPConfig(
    text_config=SMALL | {"eos_token_id": 98}, vision_config=SMALL | PICTURES, projection_dim=16
)


def trained(model, folder, **config):
    """An adapter folder as PEFT writes it, and the model that PEFT made."""
    peft = get_peft_model(model, LoraConfig(r=3, lora_alpha=6, **config)).eval()
    randomise(peft)
    peft.save_pretrained(folder)
    return peft


@torch.no_grad()
def states(model, **batch) -> torch.Tensor:
    """The last hidden states, of whichever class."""
    found = model(**batch, output_hidden_states=True)
    if "last_hidden_state" in found:
        return found.last_hidden_state
    return (found.get("hidden_states") or found.decoder_hidden_states)[-1]


BARE = {
    "mistral": (
        "MistralForCausalLM",
        T.MistralConfig(**SMALL, num_key_value_heads=2),
        ["q_proj", "up_proj"],
    ),
    "opt": (
        "OPTForCausalLM",
        T.OPTConfig(**SMALL, ffn_dim=48, word_embed_proj_dim=32),
        ["q_proj", "fc1"],
    ),
    "gpt2": ("GPT2LMHeadModel", T.GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=4), None),
}


@pytest.mark.parametrize("name", BARE)
def test_what_a_bank_on_the_bare_model_writes_acts_on_the_class_that_it_names(name, tmp_path):
    kind, config, targets = BARE[name]
    whole = build(kind, config)
    bare = whole.base_model
    wanted = {}
    for adapter in "ab":
        peft = trained(
            build(kind, config), tmp_path / adapter, target_modules=targets, task_type="CAUSAL_LM"
        )
        wanted[adapter] = peft(input_ids=IDS).logits.detach()
    bank = AdapterBank(bare)
    for adapter in "ab":
        bank.load(adapter, tmp_path / adapter)
        bank.save(adapter, tmp_path / f"{adapter}-saved")
        bank[adapter].save_pretrained(tmp_path / f"{adapter}-again")
        for folder in (f"{adapter}-saved", f"{adapter}-again"):
            again = PeftModel.from_pretrained(build(kind, config), tmp_path / folder)
            torch.testing.assert_close(again(input_ids=IDS).logits, wanted[adapter])
    merge([bank["a"], bank["b"]], "linear", weights=[1.0, 1.0]).save_pretrained(tmp_path / "sum")
    both = PeftModel.from_pretrained(build(kind, config), tmp_path / "a", adapter_name="a")
    both.load_adapter(tmp_path / "b", adapter_name="b")
    both.base_model.set_adapter(["a", "b"])
    again = PeftModel.from_pretrained(build(kind, config), tmp_path / "sum")
    torch.testing.assert_close(again(input_ids=IDS).logits, both(input_ids=IDS).logits)
    with bank.use(Mix({"a": 1.0})):
        head = whole.get_output_embeddings()
        torch.testing.assert_close(head(states(bare, input_ids=IDS)), wanted["a"])


def test_an_adapter_made_on_the_bare_model_names_the_bare_class(tmp_path):
    bank = AdapterBank(build("LlamaModel", T.LlamaConfig(**SMALL)))
    bank.create("new", rank=2, targets=["q_proj"])
    bank.train_only("new")
    for parameter in bank.parameters_of("new"):
        parameter.data.normal_()
    bank.save("new", tmp_path / "new")
    config = Adapter.from_pretrained(tmp_path / "new").config
    assert config.task_type is None
    assert config.auto_mapping["base_model_class"] == "LlamaModel"
    again = PeftModel.from_pretrained(build("LlamaModel", T.LlamaConfig(**SMALL)), tmp_path / "new")
    with bank.use(Mix({"new": 1.0})):
        torch.testing.assert_close(
            again(input_ids=IDS).last_hidden_state, states(bank, input_ids=IDS)
        )


EXCLUDING = {
    "full path": {"exclude_modules": ["distilbert.transformer.layer.0.attention.q_lin"]},
    "pattern": {"exclude_modules": r"distilbert\.transformer\.layer\.1\..*"},
    "layers": {"layers_to_transform": [1], "layers_pattern": "layer"},
    "targets by path": {"target_modules": ["distilbert.transformer.layer.1.attention.q_lin"]},
    "targets by pattern": {"target_modules": r"distilbert\.transformer\.layer\.0\..*lin"},
}


@pytest.mark.parametrize("how", EXCLUDING)
def test_full_paths_in_a_configuration_hold_on_the_bare_model(how, tmp_path):
    config = T.DistilBertConfig(vocab_size=99, dim=32, hidden_dim=48, n_layers=2, n_heads=4)
    whole = build("DistilBertForMaskedLM", config)
    options = {"target_modules": ["q_lin", "v_lin"]} | EXCLUDING[how]
    wanted = trained(build("DistilBertForMaskedLM", config), tmp_path / "a", **options)
    bank = AdapterBank(whole.distilbert)
    bank.load("a", tmp_path / "a")
    with bank.use(Mix({"a": 1.0})):
        torch.testing.assert_close(
            states(whole.distilbert, input_ids=IDS), states(wanted, input_ids=IDS)
        )


@pytest.mark.parametrize(
    ("part", "whole", "config"),
    [
        ("T5EncoderModel", "T5ForConditionalGeneration", T.T5Config(**T5)),
        ("UMT5EncoderModel", "UMT5Model", T.UMT5Config(**T5)),
    ],
)
def test_an_encoders_adapter_acts_on_the_encoder_of_the_whole_and_back(
    part, whole, config, tmp_path
):
    wanted = states(
        trained(build(part, config), tmp_path / "a", target_modules=["q", "wo"]), input_ids=IDS
    )
    bank = AdapterBank(model := build(whole, config))
    model.encoder.load_state_dict(build(part, config).encoder.state_dict())
    bank.load("a", tmp_path / "a")
    with bank.use(Mix({"a": 1.0})):
        torch.testing.assert_close(states(model.get_encoder(), input_ids=IDS), wanted)

    peft = trained(build(whole, config), tmp_path / "b", target_modules=["q", "wo"])
    wanted = states(peft.get_base_model().get_encoder(), input_ids=IDS)
    bank = AdapterBank(encoder := build(part, config))
    encoder.encoder.load_state_dict(build(whole, config).encoder.state_dict())
    with pytest.warns(InputWarning, match="'b' also changes decoder, which"):
        bank.load("b", tmp_path / "b")
    with bank.use(Mix({"b": 1.0})):
        torch.testing.assert_close(states(encoder, input_ids=IDS), wanted)
    bank.save("b", tmp_path / "saved")  # with the decoder's factors
    again = PeftModel.from_pretrained(build(whole, config), tmp_path / "saved")
    batch = {"input_ids": IDS, "decoder_input_ids": IDS}
    torch.testing.assert_close(states(again, **batch), states(peft, **batch))


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("BertModel", T.BertConfig(**SMALL)),
        ("RobertaModel", T.RobertaConfig(**SMALL)),
    ],
)
def test_a_pooler_more_or_less(kind, config, tmp_path):
    for has in (True, False):
        source = build(kind, config, add_pooling_layer=has)
        peft = trained(source, tmp_path / f"{has}", target_modules=["query", "dense"])
        other = build(kind, config, add_pooling_layer=not has)
        bank = AdapterBank(other)
        if has:
            with pytest.warns(InputWarning, match="also changes pooler, which"):
                bank.load("a", tmp_path / f"{has}")
        else:
            bank.load("a", tmp_path / f"{has}")
        other.load_state_dict(build(kind, config).state_dict(), strict=False)
        peft.get_base_model().load_state_dict(build(kind, config).state_dict(), strict=False)
        reference = PeftModel.from_pretrained(build(kind, config), tmp_path / f"{has}")
        with bank.use(Mix({"a": 1.0})):
            torch.testing.assert_close(
                states(other, input_ids=IDS), states(reference, input_ids=IDS)
            )


def test_a_towers_adapter_acts_on_that_tower_of_the_whole(tmp_path):
    batch = {"input_ids": IDS, "pixel_values": torch.randn(2, 3, 16, 16)}
    whole = build("CLIPModel", CLIP)
    for kind, part in (("CLIPTextModel", "text_model"), ("CLIPVisionModel", "vision_model")):
        source = build(kind, getattr(CLIP, part.replace("model", "config")))
        source.load_state_dict(getattr(whole, part).state_dict())
        peft = trained(source, tmp_path / part, target_modules=["q_proj", "fc1"])
        bank = AdapterBank(build("CLIPModel", CLIP))
        bank.model.load_state_dict(whole.state_dict())
        bank.load("a", tmp_path / part)
        with bank.use(Mix({"a": 1.0})), torch.no_grad():
            found = bank(**batch)[f"{part}_output"].last_hidden_state
        key = "input_ids" if part == "text_model" else "pixel_values"
        torch.testing.assert_close(found, peft(**{key: batch[key]}).last_hidden_state)
        bank.save("a", tmp_path / "saved")
        again = PeftModel.from_pretrained(source_again(source), tmp_path / "saved")
        torch.testing.assert_close(again(**{key: batch[key]}).last_hidden_state, found)
    other = AdapterBank(build("CLIPTextModel", CLIP.text_config))
    with pytest.raises(InputError, match="trained on CLIPVisionModel, and this is CLIPTextModel"):
        other.load("pictures", tmp_path / "vision_model")

    peft = trained(source_again(whole), tmp_path / "both", target_modules=["q_proj"])
    for kind, part, left in (
        ("CLIPTextModel", "text", "vision"),
        ("CLIPVisionModel", "vision", "text"),
    ):
        model = build(kind, getattr(CLIP, f"{part}_config"))
        model.load_state_dict(getattr(whole, f"{part}_model").state_dict())
        bank = AdapterBank(model)
        with pytest.warns(InputWarning, match=f"also changes {left}_model"):
            bank.load("both", tmp_path / "both")
        key = "input_ids" if part == "text" else "pixel_values"
        with bank.use(Mix({"both": 1.0})), torch.no_grad():
            found = bank(**{key: batch[key]}).last_hidden_state
            wanted = peft(**batch)[f"{part}_model_output"].last_hidden_state
        torch.testing.assert_close(found, wanted)


def source_again(peft_or_model):
    """The model as it was before PEFT wrapped its layers."""
    model = peft_or_model
    fresh = type(model)(model.config).eval()
    state = {k.replace(".base_layer", ""): v for k, v in model.state_dict().items()}
    fresh.load_state_dict({k: v for k, v in state.items() if "lora_" not in k})
    return fresh


def test_an_adapter_that_fits_two_towers_alike_is_refused(tmp_path):
    source = build("CLIPTextModel", CLIP.text_config)
    trained(source, tmp_path / "a", target_modules=["q_proj"], task_type="FEATURE_EXTRACTION")
    bank = AdapterBank(build("CLIPModel", CLIP))
    with pytest.raises(InputError, match="fits several parts of CLIPModel alike"):
        bank.load("a", tmp_path / "a")


@pytest.mark.parametrize("layers", [1, 3])
def test_another_number_of_blocks_is_refused(layers, tmp_path):
    config = T.BertConfig(**SMALL)
    trained(build("BertModel", config), tmp_path / "a", target_modules=["query"])
    other = T.BertConfig(**SMALL | {"num_hidden_layers": layers})
    for kind in ("BertModel", "BertForSequenceClassification"):
        with pytest.raises(InputError, match=r"encoder\.layer"):
            AdapterBank(build(kind, other)).load("a", tmp_path / "a")


def test_another_family_is_refused(tmp_path):
    trained(
        build("LlamaForCausalLM", T.LlamaConfig(**SMALL)),
        tmp_path / "a",
        target_modules=["q_proj"],
        task_type="CAUSAL_LM",
    )
    gpt = build("GPT2LMHeadModel", T.GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=4))
    with pytest.raises(InputError, match="does not have as a linear layer"):
        AdapterBank(gpt).load("a", tmp_path / "a")


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("RobertaModel", "BertModel"),
        ("RobertaForMaskedLM", "BertModel"),
        ("ElectraModel", "BertForSequenceClassification"),
        ("BertForMaskedLM", "ElectraForSequenceClassification"),
    ],
)
def test_another_family_whose_layers_are_named_alike_is_refused(source, target, tmp_path):
    configs = {
        "Bert": T.BertConfig(**SMALL),
        "Robe": T.RobertaConfig(**SMALL),
        "Elec": T.ElectraConfig(**SMALL, embedding_size=32),
    }
    for task in (None, "FEATURE_EXTRACTION"):  # with the class in the configuration and without
        trained(
            build(source, configs[source[:4]]),
            tmp_path / "a",
            target_modules=["query"],
            task_type=task,
        )
        bank = AdapterBank(build(target, configs[target[:4]]))
        if task and source.endswith("Model") and target.endswith("Model"):
            bank.load("a", tmp_path / "a")  # nothing tells them apart
            continue
        if task and source == "ElectraModel":
            bank.load("a", tmp_path / "a")
            continue
        with pytest.raises(InputError, match=r"was trained on|does not have as a linear"):
            bank.load("a", tmp_path / "a")


def earlier(path: str) -> str:
    """A path of a model of texts and pictures, as transformers had it before 4.52."""
    for new, old in (
        ("model.language_model.", "language_model.model."),
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
    ):
        path = path.replace(new, old)
    return path


def paligemma():
    texts = {"model_type": "gemma", "num_key_value_heads": 2, "head_dim": 8, **SMALL}
    pictures = {"model_type": "siglip_vision_model", "projection_dim": 32, **SMALL, **PICTURES}
    return T.PaliGemmaForConditionalGeneration(
        T.PaliGemmaConfig(
            text_config=texts, vision_config=pictures, projection_dim=32, image_token_index=98
        )
    )


@pytest.mark.parametrize("make", [lambda: zoo.llava()[0], paligemma])
@pytest.mark.parametrize("targets", [["q_proj", "fc1", "linear_1", "linear"], ["v_proj"]])
@torch.no_grad()
def test_parts_that_another_version_of_transformers_named_otherwise(make, targets, tmp_path):
    torch.manual_seed(4)
    model = make().eval()
    peft = trained(copy.deepcopy(model), tmp_path / "a", target_modules=targets)
    file = tmp_path / "a" / "adapter_model.safetensors"
    start = "base_model.model."
    tensors = {k.removeprefix(start): tensor for k, tensor in load_file(file).items()}
    save_file({start + earlier(path): tensor for path, tensor in tensors.items()}, file)
    assert any("vision_model" in key for key in load_file(file))
    token = model.config.image_token_id
    batch = {"input_ids": torch.tensor([[token] * 4 + [5, 6, 7]])}
    batch["pixel_values"] = torch.randn(1, 3, 16, 16)
    wanted = peft(**batch).logits
    bank = AdapterBank(copy.deepcopy(model))
    bank.load("a", tmp_path / "a")
    with bank.use("a"):
        torch.testing.assert_close(bank.model(**batch).logits, wanted, atol=1e-5, rtol=1e-4)
    bank.save("a", tmp_path / "now")  # by the names of now, under which it acts in PEFT
    again = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "now").eval()
    torch.testing.assert_close(again(**batch).logits, wanted, atol=1e-5, rtol=1e-4)
