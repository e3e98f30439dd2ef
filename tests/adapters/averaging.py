"""Two processes that train adapters, each on half of the rows, in every way that there is.

Each process writes what it ends with to ``FOLDER/RANK.pt``: the factors, or why they were refused.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from geodapt.adapters import AdapterBank, Route
from geodapt.errors import InputError
from tests.tiny_models import BASE, tiny, tiny_llama

TRAINED = ("bank", "base", "sharded")
KINDS = ("linear", "embeddings", "heads", "experts", "bfloat16")
REFUSED = ("seeds", "split")
NAMES = ("toys", "books")
STEPS = 3


def model_of(kind: str) -> torch.nn.Module:
    """A base for adapters of a kind."""
    if kind == "experts":
        sizes = {"num_key_value_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 1}
        return tiny("MixtralForCausalLM", BASE, sizes, max_position_embeddings=64).eval()
    return tiny_llama().to(torch.bfloat16 if kind == "bfloat16" else torch.float32)


def train(how: str, rank: int = 0, processes: int = 1, kind: str = "linear") -> list[torch.Tensor]:
    """The factors, and heads, of two adapters after a few steps."""
    torch.manual_seed(0)
    base = model_of(kind)
    bank = AdapterBank(base)
    targets = {"embeddings": ["embed_tokens", "q_proj"], "experts": ["q_proj", "gate_up_proj"]}
    heads = ["norm", "lm_head"] if kind == "heads" else None
    torch.manual_seed(rank if how == "seeds" else 0)
    for name in NAMES:
        bank.create(name, 4, 8.0, targets.get(kind, "all-linear"), modules_to_save=heads)
        with torch.no_grad():
            for parameter in bank.parameters_of(name):
                parameter += torch.randn_like(parameter) * 0.2
    bank.train_only(*NAMES)
    model: torch.nn.Module = base
    if how == "bank":
        model = DistributedDataParallel(bank, find_unused_parameters=True)
    elif how == "base":  # something of its own must train for this wrapper to be allowed
        base.get_input_embeddings().requires_grad_(True)
        model = DistributedDataParallel(base)
    elif how in ("sharded", "seeds"):
        for layer in base.model.layers:
            fully_shard(layer)
        fully_shard(base)
    elif how == "split":
        mesh = init_device_mesh("cpu", (processes,))
        parallelize_module(base, mesh, {"model.layers.0.self_attn.q_proj": ColwiseParallel()})
    parameters = [p for name in NAMES for p in bank.parameters_of(name)]
    optimizer = torch.optim.AdamW(parameters, lr=0.01)
    torch.manual_seed(7)
    for step in range(STEPS):
        rows = torch.randint(0, base.config.vocab_size, (4, 7))
        # In one step each process has rows under one of the two adapters alone.
        names = ["toys", None, "books", "books"] if step == 1 else ["toys", "books", "toys", None]
        share = slice(rank * 4 // processes, (rank + 1) * 4 // processes)
        with bank.use(Route(names[share])):
            model(input_ids=rows[share], labels=rows[share]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return [p.detach() for p in parameters]


def main() -> None:
    dist.init_process_group("gloo")
    rank, processes = dist.get_rank(), dist.get_world_size()
    found: dict[tuple[str, str], list[torch.Tensor] | str] = {}
    for how in (*TRAINED, *REFUSED):
        for kind in KINDS if how in TRAINED else KINDS[:1]:
            try:
                found[how, kind] = train(how, rank, processes, kind)
            except InputError as error:
                found[how, kind] = str(error)
    torch.save(found, Path(sys.argv[1]) / f"{rank}.pt")
    dist.destroy_process_group()
