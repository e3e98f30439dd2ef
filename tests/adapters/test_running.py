"""Gates under generate, torch.compile, autocast, quantization and threads."""

import copy
import threading

import pytest
import torch
from torchao.quantization import (
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    PerGroup,
    quantize_,
)

from geodapt.adapters import AdapterBank, Mix, Off, Route, TopAtoms
from tests.adapters.made_by_peft import inputs, output, seeded

TARGETS = ["q_proj", "v_proj", "o_proj"]


def filled(model=None, names=("toys", "books", "tools"), std=0.3, **options) -> AdapterBank:
    bank = AdapterBank(model or seeded("llama"), **options)
    for i, name in enumerate(names):
        bank.create(name, rank=2 + i % 3, targets=TARGETS)
        bank.train_only(name)
        for j, parameter in enumerate(bank.parameters_of(name)):
            generator = torch.Generator().manual_seed(100 * i + j)
            torch.nn.init.normal_(parameter, std=std, generator=generator)
    bank.train_only()
    return bank


GENERATION = [
    {"do_sample": False},
    {"do_sample": False, "num_beams": 3},
    {"do_sample": True, "num_return_sequences": 2, "top_k": 5},
]


@pytest.mark.parametrize("options", GENERATION)
@pytest.mark.parametrize("atoms", [False, True])
def test_a_route_lives_through_generate(options, atoms):
    bank = filled()
    batch = inputs("llama", 3)
    route = ["books", None, {"toys": 0.5, "tools": 0.5}]

    def gate(entries):
        return TopAtoms(2, Route(entries)) if atoms else Route(entries)

    options = options | {"max_new_tokens": 6, "min_new_tokens": 6, "pad_token_id": 0}
    torch.manual_seed(5)
    with bank.use(gate(route)):
        together = bank.generate(**batch, **options)
    if options["do_sample"]:  # the draws differ when rows run alone; each adapter must matter
        assert together.shape[0] == 6
        return
    for i, entry in enumerate(route):
        with bank.use(gate([entry])):
            alone = bank.generate(input_ids=batch["input_ids"][i : i + 1], **options)
        assert torch.equal(together[i], alone[0])


@pytest.mark.slow
@torch.no_grad()
def test_compiled_models_follow_the_gate_without_recompiling():
    bank = filled()
    batch = inputs("llama", 4)
    torch._dynamo.reset()
    compiled = torch.compile(bank.model, backend="aot_eager", fullgraph=True)
    gates = [
        Mix({"toys": 1.0}),
        Mix({"toys": 0.3, "books": -1.0}),
        Route(["toys", "books", None, "tools"]),
        Route(["tools", "tools", "books", "toys"]),
        TopAtoms(2, Mix({"toys": 1.0, "books": 1.0})),
        Off(),
    ]
    torch._dynamo.utils.counters.clear()
    for gate in gates:
        with bank.use(gate):
            torch.testing.assert_close(
                output(compiled, batch), output(bank.model, batch), atol=1e-5, rtol=1e-5
            )
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_compiled_models_train():
    bank = filled()
    bank.train_only("toys")
    batch = inputs("llama", 4)
    torch._dynamo.reset()
    compiled = torch.compile(bank.model, backend="aot_eager")
    gradients = []
    for model in (bank.model, compiled):
        with bank.use(Route(["toys", "books", "toys", None])):
            model(**batch).logits.square().mean().backward()
        gradients.append([p.grad.clone() for p in bank.parameters_of("toys")])
        for parameter in bank.parameters_of("toys"):
            parameter.grad = None
    for eager, compiled_grad in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled_grad, eager)


@pytest.mark.parametrize("gate", [Mix({"toys": 1.0, "books": 0.5}), Route(["toys", "books", None])])
def test_bfloat16_autocast(gate):
    bank = filled(std=0.1)
    batch = inputs("llama", 3)
    with bank.use(gate), torch.no_grad():
        wanted = output(bank.model, batch)
        with torch.autocast("cpu", torch.bfloat16):
            found = output(bank.model, batch)
        torch.testing.assert_close(output(bank.model, batch), wanted)  # nothing of it stays
    torch.testing.assert_close(found.float(), wanted, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("bits", [8, 4])
def test_adapters_on_quantized_layers(bits):
    model = seeded("llama").to(torch.bfloat16)
    config = {
        8: Int8WeightOnlyConfig(),
        4: IntxWeightOnlyConfig(torch.int4, PerGroup(32)),
    }[bits]
    quantize_(model.model, config)
    bank = filled(model, std=0.1)
    layer = model.model.layers[0].self_attn.q_proj
    x = torch.randn(3, 4, 32, dtype=torch.bfloat16)
    with torch.no_grad():
        base = layer(x)
        with bank.use(Route(["toys", None, "books"])):
            found = layer(x)
    path = "model.layers.0.self_attn.q_proj"
    for i, name in enumerate(["toys", None, "books"]):
        wanted = base[i].float()
        if name:
            wanted = wanted + x[i].float() @ bank[name].factors[path].delta().T
        torch.testing.assert_close(found[i].float(), wanted, atol=0.05, rtol=0.02)
    assert type(layer.weight) is not torch.nn.Parameter  # it is the quantized layer


def test_the_model_itself_stays_as_it_was():
    model = seeded("llama")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    bank = filled(model)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    kinds = [type(module) for module in model.modules()]
    assert kinds == [type(module) for module in seeded("llama").modules()]
    for name in bank.names:
        bank.remove(name)
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_a_deep_copy_uses_its_own_weights():
    bank = filled()
    twin = copy.deepcopy(bank.model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert output(twin, inputs("llama", 2)).abs().max() == 0


def test_threads_keep_their_own_gates():
    bank = filled()
    batch = inputs("llama", 3)
    gates = [Mix({"toys": 1.0}), Route(["books", None, "tools"]), Off(), TopAtoms(1)]
    wanted = []
    for gate in gates:
        with bank.use(gate):
            wanted.append(output(bank.model, batch))
    wrong = []
    start = threading.Barrier(len(gates))

    def work(gate, expected):
        start.wait()
        for _ in range(20):
            with bank.use(gate), torch.no_grad():
                if not torch.allclose(output(bank.model, batch), expected, atol=1e-5):
                    wrong.append(gate)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(gates, wanted, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_set_lasts_and_use_restores_it():
    bank = filled()
    batch = inputs("llama", 2)
    base = output(bank.model, batch)
    bank.set(Mix({"toys": 1.0}))
    toys = output(bank.model, batch)
    with bank.use(Off()):
        torch.testing.assert_close(output(bank.model, batch), base)
    torch.testing.assert_close(output(bank.model, batch), toys)
    seen = []
    thread = threading.Thread(target=lambda: seen.append(output(bank.model, batch)))
    thread.start()
    thread.join()
    torch.testing.assert_close(seen[0], toys)
