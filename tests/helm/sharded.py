"""`geodapt` under accelerate's FSDP2, on the CPU.

accelerate shards on accelerators alone, but FSDP2 itself runs on the CPU, too. This makes
accelerate take several processes of the CPU for some of an accelerator; all else is as in a run of
``accelerate launch --use_fsdp --fsdp_version 2``.
"""

import os

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from geodapt.cli import main

as_usual = AcceleratorState.__init__


def with_shards(state, *arguments, fsdp_plugin=None, **options):
    as_usual(state, *arguments, fsdp_plugin=fsdp_plugin, **options)
    if fsdp_plugin is not None:
        state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, fsdp_plugin


def main_sharded() -> None:
    os.environ |= {
        "ACCELERATE_USE_CPU": "true",
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    }
    AcceleratorState.__init__ = with_shards  # type: ignore[method-assign]
    main()
