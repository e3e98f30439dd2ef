"""What geodapt does on one GPU, in one prepared script of at most eight minutes.

HELM-D of the preset 100m and a Llama of equal parameters in bfloat16: a compiled training step
(forward, loss, backward, AdamW), tokens per second, the share of the peak, and a token of decoding,
compiled, with a static cache. 16 and 256 adapters routed, each row with its own, the same gate
every step and a new one every step, beside the bare base. Geometry, compiled, beside geoopt's, both
with gradients. X-Cross's training step and forward pass beside as many forward passes of the bare
encoder.

The peak is what this device reaches in a product of two large square matrices. Sides take turns;
figures are medians. A part that the time does not suffice for is left out, and named. Each figure
goes to stderr at once; the JSON at the end has all, with the device's name.

    python benchmarks/gpu.py [--small] [--minutes 8] [--parts models adapters geometry xcross]
"""

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from _geometry_peers import geoopt
from _measuring import timed
from adapters import build, make_adapters, passes
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, StaticCache
from transformers.models.bert import BertConfig, BertModel

from geodapt.adapters import AdapterBank, Route
from geodapt.geometry import lorentz, poincare
from geodapt.helm import HelmConfig, HelmForCausalLM
from geodapt.helm.contenders import of_equal_size, parameters
from geodapt.progress import console
from geodapt.runs import device_name
from geodapt.xcross.encoders import XCrossEncoder

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
DTYPE = torch.bfloat16 if GPU else torch.float32
TURNS = {"least": 5, "most": 20, "warm": 2}
SHARED = {  # geometry that systems use, with the letters of its arguments
    "lorentz.exp0": "o",
    "lorentz.log0": "h",
    "lorentz.distance": "hh",
    "poincare.distance": "bb",
    "poincare.mobius_add": "bb",
}
Rows = Iterator[dict]


compiled = torch.compile


def ratio(seconds: dict[str, float]) -> float:
    return round(seconds["ours"] / seconds["peer"], 3)


def milliseconds(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(1e3 * value, 3) for name, value in seconds.items()}


def peak(size: int) -> float:
    """Multiply-adds per second of a product of two square matrices."""
    x, y = torch.randn(2, size, size, device=DEVICE, dtype=DTYPE)
    return size**3 / timed({"product": lambda: x @ y}, budget=3, **TURNS)["product"]


# --- HELM-D and Llama --------------------------------------------------------------------------


def language_models(small: bool) -> Rows:
    changes = {"vocab_size": 256, "num_hidden_layers": 2, "hidden_size": 64, "head_dim": 16}
    config = HelmConfig.preset("100m", **(changes if small else {}))
    shared = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "head_dim")
    twin = LlamaConfig(
        **{name: getattr(config, name) for name in shared},
        intermediate_size=config.intermediate_size,
        max_position_embeddings=config.max_position_embeddings,
    )
    twin = of_equal_size(twin, "intermediate_size", parameters(config))
    with torch.device(DEVICE):
        models = {"ours": HelmForCausalLM(config), "peer": LlamaForCausalLM(twin)}
    models = {name: model.to(DTYPE) for name, model in models.items()}
    yield trained(models, *((2, 32) if small else (8, 1024)), 256 if small else 8192)
    torch.compiler.reset()
    yield decoded(
        models, 32 if small else 1024, TURNS if small else TURNS | {"most": 50, "warm": 5}
    )


def trained(models: dict[str, PreTrainedModel], rows: int, tokens: int, square: int) -> dict:
    ids = torch.randint(0, models["ours"].config.vocab_size, (rows, tokens), device=DEVICE)

    def step(model: PreTrainedModel) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        run = compiled(model.train())

        def once() -> None:
            run(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return once

    seconds = timed({name: step(model) for name, model in models.items()}, budget=40, **TURNS)
    fastest = peak(square)
    share = {
        name: 3 * multiply_adds(model, tokens) * rows * tokens / seconds[name] / fastest
        for name, model in models.items()
    }
    return {
        "what": "training step, compiled",
        "rows": rows,
        "tokens": tokens,
        "parameters": {name: model.num_parameters() for name, model in models.items()},
        "ms": milliseconds(seconds),
        "ratio": ratio(seconds),
        "tokens_per_second": {name: round(rows * tokens / s) for name, s in seconds.items()},
        "peak_tflops": round(2 * fastest / 1e12, 1),
        "share_of_peak": {name: round(value, 3) for name, value in share.items()},
    }


def multiply_adds(model: PreTrainedModel, tokens: int) -> float:
    """A token's multiply-adds in matrix products and causal attention, in a forward pass."""
    config = model.config
    products = sum(p.numel() for n, p in model.named_parameters() if "embed" not in n)
    width = config.num_attention_heads * config.head_dim
    return products + config.num_hidden_layers * 2 * width * tokens / 2


@torch.no_grad()
def decoded(models: dict[str, PreTrainedModel], context: int, turns: dict[str, int]) -> dict:
    """One token after ``context`` others. The static cache grows as it is timed, which changes
    nothing: all of it is read each time."""
    ids = torch.randint(0, models["ours"].config.vocab_size, (1, context), device=DEVICE)

    def step(model: PreTrainedModel) -> Callable[[], None]:
        model.eval()
        cache = StaticCache(model.config, max_cache_len=context + 256)
        model(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=1)
        run = compiled(model, **({"mode": "reduce-overhead"} if GPU else {}))

        def once() -> None:
            with torch.no_grad():
                run(input_ids=ids[:, :1], cache=cache, use_cache=True)

        return once

    sides = {name: step(model) for name, model in models.items()}
    seconds = timed(sides, budget=30, **turns)
    row = {"what": "decoding a token, compiled, static cache", "context": context}
    return {**row, "ms": milliseconds(seconds), "ratio": ratio(seconds)}


# --- adapters ----------------------------------------------------------------------------------


@torch.no_grad()
def adapters(small: bool) -> Rows:
    """One-token steps of as many rows as adapters, and prefills of 16 rows."""
    counts, size = ([2, 4], (64, 2, 4)) if small else ([16, 256], (1024, 8, 16))
    model = build(*size, DEVICE)
    bank = AdapterBank(model)
    for name, adapter in make_adapters(model, max(counts)).items():
        bank.add(name, adapter)
    for count in counts:
        names = [f"n{i}" for i in range(count)]
        orders = [Route(names[i:] + names[:i]) for i in range(count)]
        prefill, step = passes(model, count, 64)
        cache = model(
            input_ids=torch.randint(3, 32000, (count, 64), device=DEVICE), logits_to_keep=1
        ).past_key_values
        turn = iter(range(10**9))

        def gated(run: Callable[[], object], fresh: bool, orders=orders, turn=turn) -> Callable:
            def once() -> None:
                gate = orders[next(turn) % len(orders) if fresh else 0]
                with torch.no_grad(), bank.use(gate):
                    run()

            return once

        kinds = {"step": lambda step=step, cache=cache: step(cache)}
        if count == counts[0]:
            kinds["prefill"] = prefill
        for kind, run in kinds.items():
            sides = {"base": torch.no_grad()(run), "routed": gated(run, False)}
            seconds = timed(sides | {"new_gate_each_step": gated(run, True)}, budget=15, **TURNS)
            yield {
                "what": f"routed {kind}",
                "adapters": count,
                "rows": count,
                "base_ms": round(1e3 * seconds["base"], 3),
                **{
                    side: round(seconds[side] / seconds["base"], 3)
                    for side in ("routed", "new_gate_each_step")
                },
            }


# --- geometry ----------------------------------------------------------------------------------


def geometry(small: bool) -> Rows:
    """Forward and backward of compiled functions, beside geoopt's, compiled and eager."""
    rows, d = (256, 16) if small else (65536, 64)
    with torch.device(DEVICE):
        x, y = torch.randn(2, rows, d) / d**0.5
        peers = geoopt(torch.eye(d), 0.5)
    ball = [lorentz.to_poincare(x), lorentz.to_poincare(y)]
    points = {"o": [x / 2, y / 2], "h": [x, y], "b": ball}
    for name, takes in SHARED.items() if peers else ():
        torch.compiler.reset()
        room, _, called = name.partition(".")
        function = getattr({"lorentz": lorentz, "poincare": poincare}[room], called)
        ours = [points[letter][i].detach().requires_grad_() for i, letter in enumerate(takes)]
        peer = peers[name]
        theirs = [
            part.detach().requires_grad_()
            for part in peer.arguments(takes, tuple(t.detach() for t in ours), 1.0)
        ]
        k = torch.tensor(peer.k(1.0), device=DEVICE)
        sides = {
            "ours": pulled_back(compiled(function), ours),
            "peer": pulled_back(compiled(lambda *a, call=peer.call, k=k: call(*a, k)), theirs),
            "peer_eager": pulled_back(lambda *a, call=peer.call, k=k: call(*a, k), theirs),
        }
        seconds = timed(sides, budget=5, **TURNS)
        row = {"what": name, "rows": rows, "d": d, "ms": milliseconds(seconds)}
        eager = round(seconds["peer_eager"] / seconds["ours"], 2)
        yield {**row, "ratio": ratio(seconds), "times_faster_than_eager": eager}


def pulled_back(function: Callable[..., Tensor], inputs: list[Tensor]) -> Callable[[], object]:
    return lambda: torch.autograd.grad(function(*inputs).sum(), inputs)


# --- X-Cross -----------------------------------------------------------------------------------


def xcross(small: bool) -> Rows:
    """Three streams on an encoder of MiniLM's size, beside three passes of the bare encoder."""
    width, layers, rows, tokens = (32, 2, 4, 12) if small else (384, 6, 240, 48)
    config = BertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32 if small else 12,
        intermediate_size=4 * width,
    )
    with torch.device(DEVICE):
        base = BertModel(config, add_pooling_layer=False).eval()
    bank, names = AdapterBank(base), ["one", "two", "three"]
    for name in names:
        bank.create(name, rank=16, targets="all-linear")
        for parameter in bank.parameters_of(name):
            nn.init.normal_(parameter, std=0.02)
    encoder = XCrossEncoder(base, bank, names).to(DEVICE).eval()
    ids = torch.randint(1000, 20000, (rows, tokens), device=DEVICE)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def streams() -> Tensor:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=GPU):
            return encoder(**batch)

    def bare() -> Tensor:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=GPU):
            passed = [base(**batch).last_hidden_state[:, 0] for _ in names]
        return torch.stack(passed)

    trainable = [p for p in encoder.parameters() if p.requires_grad]
    sides: dict[str, dict[str, Callable[[], object]]] = {
        "forward": {"ours": torch.no_grad()(streams), "peer": torch.no_grad()(bare)},
        "training step": {
            "ours": lambda: torch.autograd.grad(
                streams().float().sum(), trainable, allow_unused=True
            ),
            "peer": torch.no_grad()(bare),
        },
    }
    for what, pair in sides.items():
        seconds = timed(pair, budget=15, **TURNS)
        row = {"what": f"X-Cross {what}", "streams": len(names), "prompts": rows, "tokens": tokens}
        yield {**row, "ms": milliseconds(seconds), "over_bare_passes": ratio(seconds)}


PARTS = {
    "models": language_models,
    "adapters": adapters,
    "geometry": geometry,
    "xcross": xcross,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true", help="sizes to see that it runs, on a CPU")
    parser.add_argument("--minutes", type=float, default=8.0, help="parts that begin later are not")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    options = parser.parse_args()
    if not GPU and not options.small:
        parser.error("no GPU is here; on a CPU, --small shows that the script runs")
    if options.small:  # traced as on a GPU, but a compiler would take minutes
        global compiled
        compiled = partial(torch.compile, backend="eager")
        TURNS.update(least=1, most=2, warm=1)
    torch.manual_seed(0)
    began, found, left_out = time.perf_counter(), {}, []
    for part in options.parts:
        found[part] = []
        # The last begun figure takes up to a minute and a half, most of it compiling.
        for row in PARTS[part](options.small):
            found[part].append(row)
            console.print(json.dumps(row), soft_wrap=True)
            if time.perf_counter() - began > 60 * options.minutes - 90:
                left_out.append(f"the rest of {part}")
                break
        gc.collect()
        if GPU:
            torch.cuda.empty_cache()
    figures = {
        "device": torch.cuda.get_device_name() if GPU else device_name(),
        "torch": torch.__version__,
        "dtype": str(DTYPE).removeprefix("torch."),
        "seconds": round(time.perf_counter() - began, 1),
        "left_out": left_out,
        **found,
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
