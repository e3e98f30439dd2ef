"""Layers whose weight a model reads without calling them: adapters act there, or are refused."""

import pytest
import torch
import transformers as T
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from torch import nn
from torch.nn.utils import prune

from geodapt.adapters import Adapter, AdapterBank, Factors, Mix, Off, Route
from geodapt.adapters.base_model.uncalled import never_called
from geodapt.adapters.peft_files.configuration import configure
from geodapt.errors import InputError
from tests.adapters import zoo
from tests.adapters.filled import filled
from tests.adapters.made_by_peft import inputs, output, seeded
from tests.adapters.test_rows import check


def falcon_mamba():
    sizes = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
    return zoo.text(T.FalconMambaModel(T.FalconMambaConfig(**sizes)))


class Tied(nn.Module):
    """Reads a weight in a list, and another only for its type."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        both = torch.cat([self.one.weight, self.two.weight.to(x.dtype)])
        return self.three((x.to(self.three.weight.dtype) @ both.T)[..., :4])


NEVER = {
    "jamba": (zoo.jamba, {"dt_proj"}),
    "falcon mamba": (falcon_mamba, {"dt_proj"}),
    "wavlm": (zoo.wavlm, {"q_proj", "k_proj", "v_proj", "out_proj"}),
    "tied": (lambda: (Tied(), {"x": torch.randn(2, 3, 4)}), {"one", "two"}),
}


@pytest.mark.parametrize("name", NEVER)
@torch.no_grad()
def test_layers_that_are_never_called_are_refused_and_left_out_of_all_linear(name):
    make, never = NEVER[name]
    model, batch = make()
    assert {path.rsplit(".", 1)[-1] for path in never_called(model.eval())} == never
    bank = filled(model, "all-linear")
    assert not never & set(bank["toys"].targets)
    check(bank, batch, Route(["toys", "books"]), ["toys", "books"])
    bank = filled(model, sorted(never))
    for _ in range(2):
        with bank.use("toys"), pytest.raises(InputError, match="is read without calling the layer"):
            model(**batch)
    with bank.use(Off()):
        model(**batch)


@torch.no_grad()
def test_an_adapter_that_changes_nothing_there_is_welcome():
    """As PEFT leaves its factors of a layer that no gradient reached."""
    model, batch = falcon_mamba()
    bank = AdapterBank(model.eval())
    bank.create("new", rank=2, targets=["dt_proj", "in_proj"])
    base = output(model, batch)
    with bank.use("new"):
        torch.testing.assert_close(output(model, batch), base)


class Twice(nn.Module):
    """Calls a layer and multiplies with its weight too, as a decoder that is its own encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x) @ self.layer.weight


def test_a_weight_that_is_also_read_is_refused():
    bank = filled(Twice(), ["layer"])
    with bank.use("toys"), pytest.raises(InputError, match="layer is read without calling"):
        bank(torch.randn(2, 4))


BEFORE_CALLS = {
    "pruned": lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    "spectral norm": nn.utils.spectral_norm,
    "weight norm": nn.utils.weight_norm,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("way", BEFORE_CALLS)
@torch.no_grad()
def test_a_weight_that_is_made_anew_before_each_call_is_no_reading(family, way):
    """The layer is called: an adapter acts there, beside the weight as it is then."""
    model, batch = seeded(family), inputs(family, 2)
    path = next(path for path, m in model.named_modules() if isinstance(m, nn.Linear))
    made = BEFORE_CALLS[way](model.get_submodule(path)).eval()
    model(**batch)  # makes it
    bank = filled(model, [path])
    expected = seeded(family)
    expected.get_submodule(path).weight.copy_(made.weight)
    other = AdapterBank(expected)
    other.add("toys", bank["toys"])
    for gate in (Mix({"toys": 1.0}), Route(["toys", None]), Off()):
        with bank.use(gate), other.use(gate):
            torch.testing.assert_close(output(model, batch), output(expected, batch))


@pytest.mark.slow
@torch.no_grad()
def test_what_is_compiled_is_refused_too():
    model, batch = falcon_mamba()
    bank = filled(model.eval(), ["dt_proj"])
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager")
    with bank.use("toys"), pytest.raises(InputError, match="is read without calling"):
        compiled(**batch)


@pytest.mark.slow
@torch.no_grad()
def test_compiled_parts_run_as_they_are_until_it_is_known():
    torch._dynamo.reset()
    model, batch = falcon_mamba()
    bank = filled(model.eval(), ["dt_proj"])
    for layer in model.layers:
        layer.mixer.compile(backend="eager")
    with bank.use("toys"), pytest.raises(InputError, match="is read without calling"):
        model(**batch)
    bank = filled(seeded("llama"), ["q_proj", "down_proj"])
    batch = inputs("llama", 2)
    with bank.use("toys"):
        wanted = output(bank.model, batch)
    for layer in bank.model.model.layers:
        layer.mlp.compile(backend="eager", fullgraph=True)
    for gate in ("toys", Route(["toys", "books"]), "toys"):
        with bank.use(gate):
            found = output(bank.model, batch)
        torch.testing.assert_close(found[0], wanted[0])


class Gathers(nn.Module):
    """Experts that get no token are not called, and that is no fault."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        return self.experts[1](x.to(self.experts[0].weight.dtype))


def test_experts_without_tokens_are_no_fault():
    bank = filled(Gathers(), "all-linear")
    with bank.use("toys"):
        assert bank(torch.randn(2, 4)).shape == (2, 4)


def siglip():
    return zoo.pictures(T.SiglipVisionModel(T.SiglipVisionConfig(**zoo.VISION)))


def attention():
    x = torch.randn(2, 6, 32)
    return Attention(), {"x": x}


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(32, 4)  # which takes the tokens first

    def forward(self, x):
        x = x.transpose(0, 1)
        return self.inner(x, x, x)[0].transpose(0, 1)


def padded():
    model, batch = zoo.encoder()
    mask = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    return model, batch | {"src_key_padding_mask": mask}


@pytest.mark.parametrize("make", [siglip, attention, zoo.encoder, padded])
@torch.no_grad()
def test_gates_and_the_merged_base_agree_on_pytorchs_own_layers(make):
    model, batch = make()
    before = output_of(model.eval(), batch)
    bank = filled(model, ["out_proj", "linear1", "linear2"])
    with bank.use(Off()):
        torch.testing.assert_close(output_of(model, batch), before)
    with bank.use(Mix({"toys": 0.5, "books": -1.0})):
        found = output_of(model, batch)
    bank.merge_into_base({"toys": 0.5, "books": -1.0})
    torch.testing.assert_close(found, output_of(model, batch), atol=1e-4, rtol=1e-4)
    bank.unmerge()
    assert (found - before).abs().max() > 1e-2
    if make is not padded:
        check(bank, batch, Route(["toys", None]), ["toys", {}])
    assert bank["toys"].factors.keys() >= {"inner.out_proj"} or make is not attention


def output_of(model, batch) -> torch.Tensor:
    found = model(**batch)
    found = found if isinstance(found, torch.Tensor) else found.pooler_output
    mask = batch.get("src_key_padding_mask")
    return found if mask is None else found[~mask]


def test_out_proj_trains():
    model, batch = attention()
    bank = filled(model.double(), ["out_proj"])
    bank.train_only("toys")
    with bank.use("toys"):
        bank(x=batch["x"].double()).square().sum().backward()
    ours = [p.grad for p in bank.parameters_of("toys")]
    A, B, scale = bank["toys"].factors["inner.out_proj"]
    A, B = A.double().requires_grad_(), B.double().requires_grad_()
    plain, _ = attention()
    plain.load_state_dict(model.state_dict())
    weight = plain.double().inner.out_proj.weight.detach() + scale * (B @ A)
    weights = {"inner.out_proj.weight": weight}
    torch.func.functional_call(plain, weights, (batch["x"].double(),)).square().sum().backward()
    for found, wanted in zip(ours, (A.grad, B.grad), strict=True):
        torch.testing.assert_close(found.double(), wanted, atol=1e-3, rtol=1e-4)


def test_a_wrapper_that_another_library_takes_off_is_noticed():
    model, batch = seeded("bert"), inputs("bert", 2)
    layer = model.encoder.layer[0].output.dense
    add_hook_to_module(layer, ModelHook())
    bank = filled(model, ["output.dense"])
    with bank.use("toys"):
        wanted = output(model, batch)
    remove_hook_from_module(layer)  # puts back the forward that it found
    with bank.use("toys"), pytest.raises(InputError, match="another library took the bank's"):
        model(**batch)
    bank = filled(model, ["output.dense"])
    with bank.use("toys"):
        torch.testing.assert_close(output(model, batch), wanted)


def test_a_shared_weight_that_is_read_elsewhere_is_no_fault():
    """As of an output embedding that the input embedding looks up."""
    model = T.LlamaForCausalLM(T.LlamaConfig(**zoo.TEXT, tie_word_embeddings=True)).eval()
    factors = {"lm_head": Factors(torch.randn(2, 32), torch.randn(100, 2))}
    bank = AdapterBank(model)
    bank.add("toys", Adapter(factors, configure(factors)))
    ids = zoo.ids()
    with bank.use("toys"), torch.no_grad():
        found = model(input_ids=ids)
        hidden = model.model(input_ids=ids).last_hidden_state
    delta = hidden @ factors["lm_head"].delta().T
    torch.testing.assert_close(found.logits, hidden @ model.lm_head.weight.T + delta)


@torch.no_grad()
def test_a_router_that_casts_its_layer_is_no_fault():
    model, batch = zoo.switch()
    bank = filled(model.eval(), ["classifier"])
    base = output(model, batch)
    with bank.use("toys"):
        assert (output(model, batch) - base).abs().max() > 0
