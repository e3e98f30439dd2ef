"""What the processes of :mod:`forked` would import each by itself."""

import gc

from geodapt.cli.quiet import silence

gc.disable()
silence()  # before the libraries are imported, as the command does

import sentence_transformers  # noqa: E402, F401
import torch.utils.tensorboard  # noqa: E402, F401

import geodapt.recipes.execution  # noqa: E402
import geodapt.report  # noqa: E402
import geodapt.serve.bulk  # noqa: E402
import geodapt.serve.http.server  # noqa: E402
import geodapt.xcross.experiment  # noqa: E402, F401

gc.enable()
gc.freeze()  # all of this stays; no forked process looks it through for garbage
