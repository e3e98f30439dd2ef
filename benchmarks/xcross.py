"""X-Cross in one stacked pass, against n separate passes of a PEFT model.

The peer computes the same thing the way that PEFT allows: block by block, for each stream
``set_adapter`` and run the block, then the same integrator. Ours also leaves out of the last block
what only the summary token's neighbours would need. Without integrators, n whole passes
with ``set_adapter`` are the least that n separate passes can cost. The floor is the number of
multiply-adds over the rate that this machine multiplies matrices with.

MiniLM with n adapters of rank 16 on every linear layer; prompts of 48 tokens, 8 x 30 forward and
8 x 5 in training. Sides take turns; figures are medians. Prints JSON; progress goes to stderr.

    python benchmarks/xcross.py [--repeats 5] [--streams 2 3 4] [--dtypes float32 bfloat16]
"""

import argparse
import copy
import ctypes
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from geodapt.adapters import AdapterBank
from geodapt.memory import peak_memory
from geodapt.models import load_base, transformer_blocks
from geodapt.progress import track
from geodapt.runs import device_name
from geodapt.xcross.encoders import XCrossEncoder
from geodapt.xcross.head import Head

TOKENS, RANK = 48, 16
FORWARD, TRAINING = (8, 30), (8, 5)
LINEARS = r"encoder\.layer\..*(query|key|value|dense)"


class Separate(nn.Module):
    """The peer: streams one after the other in every block, each with its adapter set."""

    def __init__(self, base: nn.Module, names: list[str], exchange: nn.ModuleList) -> None:
        super().__init__()
        config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=LINEARS)
        self.model = get_peft_model(base, config, adapter_name=names[0])
        for name in names[1:]:
            self.model.add_adapter(name, config)
        self.model.requires_grad_(False)
        generator = torch.Generator().manual_seed(0)
        for name, parameter in self.model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.05, generator=generator)
        self.names, self.exchange = names, exchange
        self.weights = nn.Parameter(torch.full((len(names),), 1 / len(names)))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        base = self.model.get_base_model()
        hidden = base.embeddings(input_ids)
        mask = (1 - attention_mask[:, None, None].to(hidden.dtype)) * torch.finfo(hidden.dtype).min
        streams = [hidden for _ in self.names]
        for block, integrator in zip(transformer_blocks(base), self.exchange, strict=True):
            for number, name in enumerate(self.names):
                self.model.base_model.set_adapter(name, inference_mode=True)
                streams[number] = block(streams[number], mask)
            streams = [*integrator(torch.stack(streams))]
        pooled = torch.stack([hidden[:, 0] for hidden in streams])
        return torch.einsum("m,mrd->rd", self.weights, pooled.to(self.weights.dtype))

    def alone(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """n whole passes whose streams never meet: less than X-Cross, and the peer's least."""
        pooled = []
        for name in self.names:
            self.model.base_model.set_adapter(name, inference_mode=True)
            pooled.append(self.model(input_ids, attention_mask).last_hidden_state[:, 0])
        return torch.einsum("m,mrd->rd", self.weights, torch.stack(pooled).to(self.weights.dtype))


def sides(count: int, dtype: torch.dtype) -> tuple[XCrossEncoder, Separate]:
    """Both with the same adapters, integrators and weights."""
    base, _ = load_base("minilm", dtype)
    base.pooler = None
    names = [f"domain{number}" for number in range(count)]
    bank = AdapterBank(base)
    with tempfile.TemporaryDirectory() as folder:
        peer = Separate(copy.deepcopy(base), names, nn.ModuleList())
        peer.model.save_pretrained(folder)
        for name in names:
            bank.load(name, f"{folder}/{name}")
    encoder = XCrossEncoder(base, bank, names)
    for integrator in encoder.exchange:
        nn.init.normal_(integrator.weight, std=0.02)
    peer.exchange = copy.deepcopy(encoder.exchange)
    return encoder.eval(), peer.eval()


def prompts(rows: int, candidates: int) -> dict[str, Tensor]:
    """Random prompts, the shorter ones padded."""
    generator = torch.Generator().manual_seed(0)
    shape = (rows * candidates, TOKENS)
    ids = torch.randint(1000, 20000, shape, generator=generator)
    lengths = torch.randint(TOKENS * 3 // 4, TOKENS + 1, shape[:1], generator=generator)
    return {"input_ids": ids, "attention_mask": (torch.arange(TOKENS) < lengths[:, None]).long()}


def forward(encode: Callable[..., Tensor], head: Head) -> Callable[[], None]:
    batch = prompts(*FORWARD)

    @torch.inference_mode()
    def run() -> None:
        head(encode(**batch))

    return run


def training(encode: Callable[..., Tensor], head: Head) -> Callable[[], None]:
    batch = prompts(*TRAINING)
    labels = torch.zeros(TRAINING[0], dtype=torch.long)

    def run() -> None:
        loss = nn.functional.cross_entropy(head(encode(**batch)).view(TRAINING), labels)
        loss.backward()

    return run


def seconds(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def rate(dtype: torch.dtype, width: int) -> float:
    """Multiply-adds a second, at the shapes of a block's widest product."""
    x, w = torch.randn(1920, width).to(dtype), torch.randn(4 * width, width).to(dtype)
    best = min(seconds(lambda: nn.functional.linear(x, w)) for _ in range(30))
    return x.shape[0] * w.numel() / best


def multiply_adds(encoder: XCrossEncoder, rows: int, backward: bool) -> float:
    """Of base products, attention and adapters, as far as the summary token needs them.

    The last block goes on from its attention with the summary token alone. Nothing in the first
    block is trained, so no gradient goes back through it.
    """
    d, layers = encoder.width, len(transformer_blocks(encoder.base))
    attention = 3 * d * d + 2 * TOKENS * d + RANK * 3 * 2 * d
    rest = 9 * d * d + RANK * (2 * d + 2 * 5 * d)
    token = layers * attention + (layers - 1) * rest
    token += backward * ((layers - 1) * attention + (layers - 2) * rest)
    return len(encoder.sources) * rows * TOKENS * token


def release_free_memory() -> None:
    """Give back what the C library keeps of freed tensors, so that every side starts equal."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def compare(count: int, dtype: torch.dtype, repeats: int) -> list[dict]:
    encoder, peer = sides(count, dtype)
    head = Head(encoder.width, encoder.width // 2)
    batch = prompts(4, 1)
    with torch.no_grad():  # that both compute the same
        ours, theirs = encoder(**batch), peer(**batch)
    close = 1e-4 if dtype is torch.float32 else 0.1
    torch.testing.assert_close(ours, theirs, rtol=close, atol=close)
    results = []
    for work, shape in ((forward, FORWARD), (training, TRAINING)):
        runs = {
            "ours": work(encoder, head),
            "peer": work(peer, head),
            "separate_passes": work(peer.alone, head),
        }
        times: dict[str, list[float]] = {name: [] for name in runs}
        for run in runs.values():
            run()
        label = f"{count} streams, {dtype}, {work.__name__}"
        for _ in track(range(repeats), label):
            for name, run in runs.items():
                times[name].append(seconds(run))
        memory = {}
        for name, run in runs.items():
            release_free_memory()
            with peak_memory() as before:
                pass
            with peak_memory() as peak:
                run()
            memory[name] = round(peak.mb - before.mb, 1)
        median = {name: statistics.median(values) for name, values in times.items()}
        rows = shape[0] * shape[1]
        floor = multiply_adds(encoder, rows, work is training) / rate(dtype, encoder.width)
        results.append(
            {
                "work": work.__name__,
                "streams": count,
                "dtype": str(dtype).removeprefix("torch."),
                "prompts": rows,
                "seconds": {name: round(value, 4) for name, value in median.items()},
                "floor_seconds": round(floor, 4),
                "ratio": round(median["peer"] / median["ours"], 3),
                "ratio_without_integrators": round(median["separate_passes"] / median["ours"], 3),
                "extra_memory_mb": memory,
            }
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--streams", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    chosen = parser.parse_args()
    torch.manual_seed(0)
    results = [
        result
        for dtype in chosen.dtypes
        for count in chosen.streams
        for result in compare(count, getattr(torch, dtype), chosen.repeats)
    ]
    figures = {
        "benchmark": "xcross",
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "reached": min(result["ratio"] for result in results),
        "to_reach": 1.15,
        "results": results,
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
