"""HELM beside Llama and DeepSeek-V3 of transformers, in one process and in turn.

Equal widths, heads and layers; the feed-forward size of the HELM is set so that parameters are
equal. Training steps (forward, loss, backward) eager and compiled, prefill and decoding; HMLA's
absorbed decoding beside rebuilding keys and values; the cache's bytes beside the formula. A ratio
is HELM's median time over its peer's, on a CPU of processor time. The floor beside it is the ratio
of multiply-adds in the matrix products and attention. Prints JSON.

    python benchmarks/helm.py [--quick] [--parts train compiled serve decode cache] [--device cuda]
"""

import argparse
import gc
import json
import time
from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import torch
from _measuring import timed as timed_by
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    StaticCache,
)

from geodapt.helm import HelmConfig, HelmForCausalLM
from geodapt.helm.latent_attention import HelmLatentAttention
from geodapt.helm.lorentz_layers import Curvature
from geodapt.memory import peak_memory
from geodapt.progress import bar, console
from geodapt.runs import device_name

LATENT = {"q_lora_rank": None, "kv_lora_rank": 128, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32}
LATENT |= {"v_head_dim": 64, "n_shared_experts": 1, "num_experts_per_tok": 2}
LATENT |= {"first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}
EXPERTS = 4
IN_A_ROW = 8
PARTS = ["train", "compiled", "serve", "decode", "cache"]


timed = partial(
    timed_by, clock=time.perf_counter if torch.cuda.is_available() else time.process_time
)


def pair(kind: str, width: int, layers: int, vocabulary: int, device: str) -> dict:
    """A HELM and its peer with (nearly) equal parameters, ``kind`` dense or mice."""
    base = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // 64),
        "intermediate_size": 8 * width // 3,
        "max_position_embeddings": 32768,
    }
    peer: PreTrainedModel
    torch.manual_seed(0)
    with torch.device(device):
        if kind == "dense":
            peer, size = LlamaForCausalLM(LlamaConfig(**base)), "intermediate_size"
        else:
            experts = {"n_routed_experts": EXPERTS, "moe_intermediate_size": 4 * width // 3}
            base |= LATENT | experts | {"routed_scaling_factor": 1.0}
            config = DeepseekV3Config(**base | {"num_nextn_predict_layers": 0})
            peer, size = DeepseekV3ForCausalLM(config), "moe_intermediate_size"
        wanted = count(peer)
        near = range(base[size] - 16, base[size] + 17, 8)
        best = min(near, key=lambda n: abs(count(helm(kind, {**base, size: n})) - wanted))
        ours = helm(kind, {**base, size: best}, device)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return {"ours": ours.to(dtype), "peer": peer.to(dtype)}


def helm(kind: str, base: dict, device: str = "meta") -> HelmForCausalLM:
    with torch.device(device):
        attention = "mha" if kind == "dense" else "mla"
        return HelmForCausalLM(HelmConfig(**base, attention=attention))


def count(model: PreTrainedModel) -> int:
    return sum(p.numel() for p in model.parameters())


def multiply_adds(model: PreTrainedModel, tokens: int) -> float:
    """A token's multiply-adds in matrix products and attention, its context ``tokens / 2``."""
    config, total = model.config, 0.0
    share = getattr(config, "num_experts_per_tok", 1) / EXPERTS
    for name, p in model.named_parameters():
        if "embed" not in name and p.dim() > 1:
            total += p.numel() * (share if ".experts." in name else 1)
    size = config.head_dim * 2
    if hasattr(config, "kv_lora_rank") and getattr(config, "attention", "mla") == "mla":
        size = config.qk_nope_head_dim + config.qk_rope_head_dim + config.v_head_dim
    return total + config.num_hidden_layers * config.num_attention_heads * size * tokens / 2


def training(kind: str, width: int, tokens: int, options, compiled: bool) -> dict:
    models = pair(kind, width, options.layers, options.vocabulary, options.device)
    ids = torch.randint(0, options.vocabulary, (options.rows, tokens), device=options.device)

    def step(model) -> Callable[[], None]:
        run = torch.compile(model) if compiled else model

        def once() -> None:
            model.zero_grad()
            run(input_ids=ids, labels=ids, use_cache=False).loss.backward()

        return once

    sides = {name: step(model.train()) for name, model in models.items()}
    memory = {}
    for name, side in sides.items():
        side()
        with peak_memory() as peak:
            side()
        memory[name] = peak.mb
    seconds = timed(sides, options.budget, most=30)
    floor = multiply_adds(models["ours"], tokens) / multiply_adds(models["peer"], tokens)
    return {
        "what": f"training step, {'compiled' if compiled else 'eager'}",
        **about(kind, width, tokens, models),
        **compare(seconds),
        "floor": round(floor, 3),
        "peak_mb": memory,
    }


@torch.no_grad()
def serving(kind: str, width: int, tokens: int, options) -> list[dict]:
    """Prefill of a prompt, and one-token steps after it; the static cache grows as they are timed,
    which changes nothing, since all of it is read in each."""
    models = pair(kind, width, options.layers, options.vocabulary, options.device)
    ids = torch.randint(0, options.vocabulary, (1, tokens), device=options.device)
    caches, prefill, step, compiled = {}, {}, {}, {}
    for name, model in models.items():
        model.eval()
        caches[name] = model(ids, use_cache=True).past_key_values
        static = StaticCache(model.config, max_cache_len=tokens + 128)
        model(ids, cache=static, use_cache=True)

        def first(model=model):
            with torch.no_grad():
                model(ids, use_cache=False, logits_to_keep=1)

        def following(model=model, cache=caches[name]):
            with torch.no_grad():
                model(ids[:, :1], cache=cache, use_cache=True)
            cache.crop(-1)

        graph = torch.compile(model)

        def next_one(run=graph, cache=static):
            with torch.no_grad():
                run(input_ids=ids[:, :1], cache=cache, use_cache=True)

        prefill[name], step[name], compiled[name] = first, following, next_one
    found = []
    for what, sides, count_of in (
        ("prefill", prefill, tokens),
        ("decoding step, eager", step, 1),
        ("decoding step, compiled, static cache", compiled, 1),
    ):
        seconds = timed(sides, options.budget, most=30)
        speed = {name: round(count_of / s, 1) for name, s in seconds.items()}
        row = {"what": what, **about(kind, width, tokens, models), **compare(seconds)}
        found.append({**row, "tokens_a_second": speed})
    return found


@torch.no_grad()
def decoding(context: int, options) -> list[dict]:
    """One step over a cache that holds ``context`` tokens, absorbed and rebuilt: a layer of
    attention alone, and the model that it is part of. A turn is several steps, as decoding is:
    after a single one of the other side a step finds that one's data in the processor's cache."""
    width, layers = options.widths[-1], options.layers
    model = pair("mice", width, layers, options.vocabulary, options.device)["ours"].eval()
    config = model.config
    kept = config.qk_rope_head_dim + 2 * config.num_attention_heads
    cache = DynamicCache(config=config)
    like = {"device": options.device, "dtype": model.dtype}
    for layer in range(config.num_hidden_layers):
        latents = torch.randn(1, 1, context, config.kv_lora_rank, **like)
        cache.update(latents, torch.randn(1, 1, context, kept, **like).abs(), layer)
    ids = torch.zeros(1, 1, dtype=torch.long, device=options.device)
    x, time = torch.randn(1, 1, width, **like), torch.ones(1, 1, device=options.device)
    rotation = model.model.rotary_emb(x, torch.full((1, 1), context, device=options.device))
    c = Curvature.of(torch.ones((), device=options.device))

    def attention() -> None:
        model.model.layers[0].self_attn(x, time, c, rotation, cache=cache)
        cache.layers[0].crop(-1)

    def whole() -> None:
        model(ids, cache=cache, use_cache=True)
        cache.crop(-1)

    def step(run: Callable[[], None], absorbs: bool) -> Callable[[], None]:
        def once() -> None:
            with torch.no_grad(), patch.object(HelmLatentAttention, "_absorbs", lambda *_: absorbs):
                for _ in range(IN_A_ROW):
                    run()

        return once

    rows = []
    for what, run in (("attention", attention), ("the whole model", whole)):
        sides = {"absorbed": step(run, True), "rebuilt": step(run, False)}
        seconds = timed(sides, options.budget, most=30)
        rows.append(
            {
                "what": f"HMLA decoding step, {what}",
                "width": width,
                "context": context,
                "ms": {name: round(1e3 * s / IN_A_ROW, 2) for name, s in seconds.items()},
                "times_faster": round(seconds["rebuilt"] / seconds["absorbed"], 2),
            }
        )
    return rows


@torch.no_grad()
def cached(kind: str, width: int, options) -> dict:
    models = pair(kind, width, 2, options.vocabulary, options.device)
    ids, tokens = torch.zeros(1, 64, dtype=torch.long, device=options.device), 64
    held = {}
    for name, model in models.items():
        layers = model.eval()(ids, use_cache=True).past_key_values.layers
        total = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
        held[name] = total / tokens / len(layers)
    config = models["ours"].config
    numbers = 2 * config.num_key_value_heads * config.head_dim
    if kind == "mice":
        numbers = config.kv_lora_rank + config.qk_rope_head_dim + 2 * config.num_attention_heads
    size = torch.finfo(models["ours"].dtype).bits // 8
    row = {"what": "cache, bytes a token and layer", "model": kind, "width": width}
    return {**row, **held, "formula": numbers * size}


def about(kind: str, width: int, tokens: int, models: dict) -> dict:
    sizes = {name: count(model) for name, model in models.items()}
    row = {"model": kind, "width": width, "tokens": tokens, "parameters": sizes["ours"]}
    return {**row, "parameter_ratio": round(sizes["ours"] / sizes["peer"], 4)}


def compare(seconds: dict[str, float]) -> dict:
    ms = {name: round(1e3 * s, 2) for name, s in seconds.items()}
    return {"ms": ms, "ratio": round(seconds["ours"] / seconds["peer"], 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="sizes to see that it runs")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--kinds", nargs="+", default=["dense", "mice"], choices=["dense", "mice"])
    parser.add_argument("--widths", nargs="+", type=int, default=[384, 768])
    parser.add_argument("--tokens", nargs="+", type=int, default=[512, 1024])
    parser.add_argument("--contexts", nargs="+", type=int, default=[1024, 4096, 16384])
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--budget", type=float, default=30.0, help="seconds a comparison")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.quick:
        options.widths, options.tokens, options.contexts = [96], [32], [64, 256]
        options.layers, options.vocabulary, options.budget = 2, 256, 0.1
    torch.set_num_threads(options.threads)
    rows: list[dict] = []

    def add(*found: dict) -> None:
        for row in found:
            rows.append(row)
            console.print(json.dumps(row), soft_wrap=True)
            progress.advance()
        gc.collect()

    with bar("benchmark", total=None) as progress:
        for kind in options.kinds:
            for width in options.widths:
                for tokens in options.tokens:
                    if "train" in options.parts:
                        add(training(kind, width, tokens, options, compiled=False))
                    if "compiled" in options.parts:
                        torch._dynamo.reset()
                        add(training(kind, width, tokens, options, compiled=True))
                    if "serve" in options.parts:
                        torch._dynamo.reset()
                        add(*serving(kind, width, tokens, options))
                if "cache" in options.parts:
                    add(cached(kind, width, options))
        if "decode" in options.parts:
            for context in options.contexts:
                add(*decoding(context, options))
    print(json.dumps({"device": device_name(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
