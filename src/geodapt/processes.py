"""Several processes of one run, as ``accelerate launch`` starts them.

In a single process everything here is trivial, and costs no import of torch.
"""

import os
from typing import TypeVar

T = TypeVar("T")


def is_main_process() -> bool:
    """Whether this process writes the files: the only one, or the first of several."""
    return process_number() == 0


def several_processes() -> bool:
    """Whether a launcher started this process together with others."""
    return processes() > 1


def processes() -> int:
    """How many processes this run has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_number() -> int:
    """This process's number among them, from 0."""
    return int(os.environ.get("RANK", "0"))


def join_processes() -> None:
    """Connect the processes that a launcher started; nothing when there is one."""
    if several_processes():
        from accelerate import PartialState

        # Every process builds or reads all weights before they are sharded. Sent around by the
        # first one instead, buffers such as a gate's bias break FSDP2 (accelerate's issue 3898).
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
        PartialState()


def wait_for_everyone() -> None:
    """Return once every process is here."""
    if _connected():
        import torch.distributed

        torch.distributed.barrier()


def from_main_process(value: T) -> T:
    """The main process's value, in every process."""
    if not _connected():
        return value
    import torch.distributed

    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def _connected() -> bool:
    if not several_processes():
        return False
    import torch.distributed

    return torch.distributed.is_available() and torch.distributed.is_initialized()
