"""Seconds a forward pass of compressed models over that of the dense one, in one process, in turn.

A Llama of width 512: a prefill of 64 tokens in 4 rows, and a one-token step of one row. Prints
JSON: the ratio to the dense model (above 1 is slower), bits a weight, and bytes in memory.

    python benchmarks/compress.py [--device cuda] [--threads 2] [--turns 15]
"""

import argparse
import json
from typing import Any

import torch
from _measuring import timed
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from geodapt.compress import compress
from geodapt.progress import bar
from geodapt.runs import device_name

WAYS: dict[str, dict[str, Any]] = {
    "dense": {},
    "svd at 8 bits": {"method": "svd", "bits_per_weight": 8},
    "svd at 4.5 bits": {"method": "svd", "bits_per_weight": 4.5},
    "int8": {"method": "int8"},
    "int4": {"method": "int4"},
    "lowrank_plus_int4 at 4.5 bits": {"method": "lowrank_plus_int4", "bits_per_weight": 4.5},
}


def build(dtype: torch.dtype) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        intermediate_size=2048,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval().to(dtype)


def memory(model: nn.Module) -> int:
    """Bytes of the linear layers' weights as they lie in memory."""

    def size(tensor: Any) -> int:
        if not hasattr(tensor, "__tensor_flatten__"):
            return tensor.numel() * tensor.itemsize
        names, _ = tensor.__tensor_flatten__()
        return sum(size(getattr(tensor, name)) for name in names)

    head = model.get_output_embeddings()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    return sum(size(layer.weight.data) for layer in layers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    models, bits = {}, {}
    for name, how in WAYS.items():
        model = build(dtype)
        weights = memory(model) // dtype.itemsize
        if how:
            reports = compress(model, **how)
            bits[name] = 8 * sum(report.bytes for report in reports.layers) / weights
        models[name] = model.to(args.device)
    phases = {"prefill, 4 x 64 tokens": (4, 64), "step, 1 token": (1, 1)}
    rows = []
    for phase, (count, tokens) in phases.items():
        ids = torch.randint(3, 2000, (count, tokens), device=args.device)
        sides = {
            name: lambda model=model, ids=ids: model(input_ids=ids, use_cache=False)
            for name, model in models.items()
        }
        with torch.no_grad(), bar("timing"):
            seconds = timed(sides, least=args.turns, most=args.turns)
        for name in WAYS:
            rows.append(
                {
                    "phase": phase,
                    "way": name,
                    "ms": round(1e3 * seconds[name], 2),
                    "over_dense": round(seconds[name] / seconds["dense"], 3),
                    "bits_per_weight": round(bits[name], 2) if name in bits else None,
                    "megabytes_in_memory": round(memory(models[name]) / 2**20, 1),
                }
            )
    device = device_name() if args.device == "cpu" else torch.cuda.get_device_name()
    print(json.dumps({"device": device, "threads": args.threads, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
