"""The one training loop: a thin layer over ``transformers.Trainer``.

Trainer brings devices, processes (``accelerate launch``), accumulation, schedules, checkpoints
and resumption. Here stand the settings that recipes share, checkpoints that hold only what
trains, a progress bar, and the refusal to continue from a NaN.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
