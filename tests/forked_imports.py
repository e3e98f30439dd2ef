"""What the processes of :mod:`forked` would import each by itself."""

import gc

from geodapt.cli.quiet import silence

gc.disable()
silence()  # before the libraries are imported, as the command does

import datasets  # noqa: E402, F401
import peft  # noqa: E402, F401
import sentence_transformers  # noqa: E402, F401
import transformers.trainer  # noqa: E402, F401

import geodapt.compress.recipe  # noqa: E402, F401

gc.enable()
gc.freeze()  # all of this stays; no forked process looks it through for garbage
