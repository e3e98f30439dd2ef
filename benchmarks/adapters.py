"""Many adapters on one base, ours and PEFT's, in one process and in turn.

For two Llama models with LoRA of rank 16 on q, k, v and o: prefill of 64 tokens and a one-token
step with one adapter a row, 16 adapters mixed, top atoms, and merges of 4 adapters. Every figure
is a median time divided by that of the bare base, measured in the same rounds; the floor beside
it is what the factors' multiply-adds and bytes add at least. Prints JSON.

    python benchmarks/adapters.py [--quick] [--device cuda]
"""

import argparse
import gc
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from _measuring import timed
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from geodapt.adapters import METHODS, Adapter, AdapterBank, Factors, Mix, Route, TopAtoms, merge
from geodapt.adapters.merging import layer_seed
from geodapt.adapters.merging.registry import LowRank, Part
from geodapt.adapters.merging.tiles import Tiles
from geodapt.adapters.peft_files.configuration import configure
from geodapt.progress import bar, console
from geodapt.runs import device_name

RANK, TARGETS = 16, ["q_proj", "k_proj", "v_proj", "o_proj"]
MODELS = {"512x6": (512, 6, 8), "1024x8": (1024, 8, 16)}


def build(width: int, layers: int, heads: int, device: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=256,
        pad_token_id=0,
    )
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return LlamaForCausalLM(config).eval().to(device, dtype)


def make_adapters(model: LlamaForCausalLM, count: int) -> dict[str, Adapter]:
    """Random adapters whose spectrum falls, as those of trained adapters do."""
    generator = torch.Generator().manual_seed(1)
    layers = {
        path: (module.in_features, module.out_features)
        for path, module in model.named_modules()
        if path.rsplit(".", 1)[-1] in TARGETS
    }
    falling = 0.7 ** torch.arange(RANK)
    adapters = {}
    for i in range(count):
        factors = {}
        for path, (width, out) in layers.items():
            A = torch.randn(RANK, width, generator=generator) / width**0.5
            B = torch.randn(out, RANK, generator=generator) / out**0.5 * falling
            factors[path] = Factors(A, B, 2.0)
        like = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS)
        adapters[f"n{i}"] = Adapter(factors, configure(factors, Adapter(factors, like)))
    return adapters


def passes(model, rows: int, tokens: int) -> tuple[Callable, Callable]:
    """A prefill of so many tokens, and a one-token step after it."""
    ids = torch.randint(3, 32000, (rows, tokens), device=model.device)

    def prefill(run=model, **kwargs):
        return run(input_ids=ids, use_cache=False, logits_to_keep=1, **kwargs)

    def step(cache, run=model, **kwargs):
        out = run(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True, **kwargs)
        cache.crop(-1)
        return out

    return prefill, step


def floor(model, width: int, layers: int, rows: int, tokens: int, used: int, mixed: bool) -> dict:
    """What the factors add to the base at least, as ratios: multiply-adds, and bytes read.

    Each routed row meets one adapter's factors, each mixed row all of them. Many tokens are bound
    by the first, a few by the second.
    """
    weights = sum(p.numel() for n, p in model.named_parameters() if "embed" not in n)
    head = model.lm_head.weight.numel()
    factors = layers * len(TARGETS) * RANK * 2 * width
    base_macs = rows * (tokens * (weights - head) + head)
    extra_macs = rows * tokens * factors * (used if mixed else 1)
    return {
        "macs": round(1 + extra_macs / base_macs, 3),
        "bytes": round(1 + used * factors / weights, 3),
    }


def routed(name: str, counts: list[int], device: str, rows_out: list, progress) -> None:
    width, layers, heads = MODELS[name]
    model = build(width, layers, heads, device)
    adapters = make_adapters(model, max(counts))
    bank = AdapterBank(model)
    for key, adapter in adapters.items():
        bank.add(key, adapter)
    for count in counts:
        gates = {"routed": (Route([f"n{i}" for i in range(count)]), count)}
        if count == 16:
            everything = Mix({f"n{i}": 1.0 for i in range(count)})
            gates["mixed"] = (everything, 16)
            gates["atoms"] = (TopAtoms(of=everything), 16)
        for kind, (gate, rows) in gates.items():
            peft = _peft(name, adapters, count, kind, device) if count <= 64 else None
            for phase, tokens in (("prefill", 64), ("step", 64)):
                if phase == "prefill" and rows > 64:
                    continue
                sides = _sides(model, bank, gate, peft, rows, tokens, phase, kind)
                seconds = timed(sides)
                rows_out.append(
                    {
                        "model": name,
                        "what": f"{kind} {phase}",
                        "adapters": count,
                        "rows": rows,
                        "base_ms": round(1e3 * seconds["base"], 2),
                        "ours": round(seconds["ours"] / seconds["base"], 3),
                        "peft": round(seconds["peft"] / seconds["base"], 3) if peft else None,
                        "floor": floor(
                            model,
                            width,
                            layers,
                            rows,
                            tokens if phase == "prefill" else 1,
                            count,
                            kind != "routed",
                        ),
                    }
                )
                report(rows_out[-1], progress)
            del peft
            gc.collect()


@torch.no_grad()
def _sides(model, bank, gate, peft, rows, tokens, phase, kind) -> dict[str, Callable]:
    prefill, step = passes(model, rows, tokens)
    prompt = torch.randint(3, 32000, (rows, tokens), device=model.device)
    caches = {
        side: model(input_ids=prompt, logits_to_keep=1).past_key_values
        for side in ("base", "ours", "peft")
    }
    names = {"adapter_names": list_names(gate)} if kind == "routed" else {}

    def base():
        with torch.no_grad():
            return prefill() if phase == "prefill" else step(caches["base"])

    def ours():
        with torch.no_grad(), bank.use(gate):
            return prefill() if phase == "prefill" else step(caches["ours"])

    def theirs():
        with torch.no_grad():
            if phase == "prefill":
                return prefill(peft, **names)
            return step(caches["peft"], peft, **names)

    if peft is None or kind == "atoms":
        return {"base": base, "ours": ours} | ({"peft": theirs} if peft else {})
    with torch.no_grad():
        difference = (ours().logits - theirs().logits).abs().max().item()
    assert difference < (1e-3 if model.dtype == torch.float32 else 1), difference
    return {"base": base, "ours": ours, "peft": theirs}


def list_names(gate: Route) -> list[str]:
    return [terms[0][0] for terms in gate.entries]


def _peft(name: str, adapters: dict[str, Adapter], count: int, kind: str, device: str):
    """PEFT's model with the first adapters, all of them active unless rows choose."""
    chosen = list(adapters)[:count]
    with tempfile.TemporaryDirectory() as folder:
        model = None
        for key in chosen:
            adapters[key].save_pretrained(Path(folder) / key)
            if model is None:
                base = build(*MODELS[name], device)
                model = PeftModel.from_pretrained(base, Path(folder) / key, adapter_name=key)
            else:
                model.load_adapter(Path(folder) / key, key)
    model.eval()
    model.base_model.set_adapter(chosen if kind != "routed" else chosen[:1])
    return model


def merges(rows_out: list, progress) -> None:
    """Merges of 4 adapters on the wider model; PEFT's method of the same name beside each."""
    peers = {
        "svd": "svd",
        "linear": "svd",
        "cat": "cat",
        "ties": "ties_svd",
        "dare": "dare_linear_svd",
        "dare_ties": "dare_ties_svd",
        "magnitude": "magnitude_prune_svd",
    }
    model = build(*MODELS["1024x8"], "cpu")
    adapters = list(make_adapters(model, 4).values())
    reference = get_peft_model(
        model, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS), "n0"
    )
    for i in range(1, 4):
        reference.add_adapter(
            f"n{i}", LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS)
        )
    for i, adapter in enumerate(adapters):
        for path, (A, B, _) in adapter.factors.items():
            layer = reference.base_model.model.get_submodule(path)
            layer.lora_A[f"n{i}"].weight.data = A.clone()
            layer.lora_B[f"n{i}"].weight.data = B.clone()

    def theirs(kind: str) -> Callable[[], None]:
        density = None if kind in ("svd", "cat") else 0.5

        def run() -> None:
            if "merged" in reference.peft_config:
                reference.delete_adapter("merged")
            reference.add_weighted_adapter(
                [f"n{i}" for i in range(4)],
                [0.25] * 4,
                "merged",
                combination_type=kind,
                svd_rank=RANK,
                density=density,
            )

        return run

    for name, method in METHODS.items():
        merge(adapters, name, same_base=True)  # warms up
        peer = peers.get(name, "svd")
        sides = {
            "ours": lambda name=name: merge(adapters, name, same_base=True),
            "peer": theirs(peer),
            "svd": theirs("svd"),
        }
        seconds = timed(sides, budget=0, warm=0)
        rows_out.append(
            {
                "what": f"merge {name}",
                "ms": round(1e3 * seconds["ours"], 1),
                "peft": peer,
                "peft_ms": round(1e3 * seconds["peer"], 1),
                "peft_svd_ms": round(1e3 * seconds["svd"], 1),
                "times_faster": round(seconds["peer"] / seconds["ours"], 1),
                "times_faster_than_peft_svd": round(seconds["svd"] / seconds["ours"], 1),
                "lost": _lost(adapters, name) if method.truncates else None,
            }
        )
        report(rows_out[-1], progress)


def _lost(adapters: list[Adapter], name: str) -> dict[str, float]:
    """What the cut loses of a layer's merged update, and what an exact SVD, as PEFT's, loses."""
    path = next(iter(adapters[0].factors))
    some = [Adapter({path: adapter.factors[path]}, adapter.config) for adapter in adapters]
    merged = merge(some, name, same_base=True)
    weight = 1.0 if METHODS[name].averages else 1 / len(some)
    factors = [adapter.factors[path] for adapter in some]
    seed = {"seed": layer_seed(path)} if "seed" in METHODS[name].options else {}
    whole = METHODS[name]([Part(A, scale * B, weight) for A, B, scale in factors], **seed)
    if isinstance(whole, LowRank):
        whole = whole.B @ whole.A
    whole = (whole.dense() if isinstance(whole, Tiles) else whole).double()
    spectrum = torch.linalg.svdvals(whole).square()
    found = merged.factors[path].delta().double()
    return {
        "ours": ((whole - found).norm() / whole.norm()).item(),
        "exact": (1 - spectrum[: merged.rank].sum() / spectrum.sum()).sqrt().item(),
    }


def report(row: dict, progress) -> None:
    """Show a figure as soon as it is there."""
    console.print(json.dumps(row), soft_wrap=True)
    progress.advance()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the smaller model, 1 and 16 adapters")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--parts", nargs="+", default=["gates", "merges"])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows: list[dict] = []
    with bar("benchmark", total=None) as progress:
        if "gates" in arguments.parts:
            counts = [1, 16] if arguments.quick else [1, 4, 16, 64, 256]
            for name in arguments.models[: 1 if arguments.quick else None]:
                routed(name, counts, arguments.device, rows, progress)
        if "merges" in arguments.parts:
            merges(rows, progress)
    device = "cpu" if arguments.device == "cpu" else torch.cuda.get_device_name()
    print(
        json.dumps({"device": device if device != "cpu" else device_name(), "rows": rows}, indent=1)
    )


if __name__ == "__main__":
    main()
