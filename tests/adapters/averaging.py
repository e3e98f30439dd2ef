"""Run by torch.distributed.run: what adapters that train beside another process end with.

``averaging.py HOW FOLDER`` trains one adapter on half of the rows in each process, and writes each
process's factors to ``FOLDER/HOW-RANK.pt``; alone, on all rows.
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
from tests.tiny_models import tiny_llama

HOW, FOLDER = sys.argv[1], Path(sys.argv[2])
STEPS = 3


def main() -> None:
    rank, processes = 0, 1
    if HOW != "alone":
        dist.init_process_group("gloo")
        rank, processes = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    base = tiny_llama()
    bank = AdapterBank(base)
    torch.manual_seed(rank if HOW == "seeds" else 0)
    for name in ("toys", "books"):
        bank.create(name, 4, 8.0)
        with torch.no_grad():
            for parameter in bank.parameters_of(name):
                parameter.normal_(std=0.2)
    bank.train_only("toys", "books")
    model: torch.nn.Module = base
    if HOW == "bank":
        model = DistributedDataParallel(bank, find_unused_parameters=True)
    elif HOW == "base":  # something of its own must train for this wrapper to be allowed
        base.lm_head.requires_grad_(True)
        model = DistributedDataParallel(base)
    elif HOW in ("sharded", "seeds"):
        for layer in base.model.layers:
            fully_shard(layer)
        fully_shard(base)
    elif HOW == "split":
        mesh = init_device_mesh("cpu", (processes,))
        parallelize_module(base, mesh, {"model.layers.0.self_attn.q_proj": ColwiseParallel()})
    parameters = [p for name in ("toys", "books") for p in bank.parameters_of(name)]
    optimizer = torch.optim.AdamW(parameters, lr=0.01)
    torch.manual_seed(7)
    for step in range(STEPS):
        rows = torch.randint(0, base.config.vocab_size, (4, 7))
        # In one step each process has rows under one of the two adapters alone.
        names = ["toys", None, "books", "books"] if step == 1 else ["toys", "books", "toys", None]
        share = slice(rank * 4 // processes, (rank + 1) * 4 // processes)
        with bank.use(Route(names[share])):
            loss = model(input_ids=rows[share], labels=rows[share]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.save([p.detach() for p in parameters], FOLDER / f"{HOW}-{rank}.pt")


try:
    main()
except InputError as error:
    sys.exit(f"refused: {error}")
