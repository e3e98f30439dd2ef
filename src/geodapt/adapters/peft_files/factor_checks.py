"""Can these factors be computed with? Types, names and sizes of their values."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from geodapt.adapters.peft_files.factors import Factors
from geodapt.errors import InputError
from geodapt.headers import Header

PREFIX = "base_model.model."
WRAPPERS = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile, FSDP and checkpointing put into the names of what they wrap."""
FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
LARGEST = 1e18
"""Squares of larger values overflow float32."""
USUAL = 10
"""Exponents of two of values that float16 holds with its products."""


def unwrapped(value: Any) -> Any:
    """A path, or what holds paths, without what wrappers put there."""
    if isinstance(value, str):
        return WRAPPERS.sub("", value)
    if isinstance(value, list):
        return [unwrapped(each) for each in value]
    if isinstance(value, dict):
        return {unwrapped(key): unwrapped(each) for key, each in value.items()}
    return value


def tensor_key(name: str) -> str:
    """A tensor's name in a file without PEFT's prefix and what training's wrappers put there."""
    key = unwrapped(name)
    if key.startswith(f"module.{PREFIX}"):  # of DistributedDataParallel
        key = key.removeprefix("module.")
    while key.startswith(PREFIX):
        key = key.removeprefix(PREFIX)
    return key


def check_header(source: Any, header: Header) -> None:
    """Checks a file's factors before their values are read; ``source`` is its adapter's name.

    Raises :class:`InputError` for numbers that are no real floating-point numbers of two bytes or
    more, for a factor without numbers, and for one that is there under two names.
    """
    names: dict[str, str] = {}
    for name, (dtype, shape) in header.tensors.items():
        key = tensor_key(name)
        if ".lora_" not in key:
            continue
        if dtype not in FLOATS:
            raise InputError(
                f"adapter '{source}': {name} is of type {dtype}; geodapt computes with float16, "
                "bfloat16, float32 and float64. Convert the factors and save the adapter again"
            )
        if 0 in shape:
            raise InputError(f"adapter '{source}': {name} of shape {list(shape)} is empty")
        other = names.setdefault(key.replace(".default", ""), name)
        if other != name:
            raise InputError(
                f"adapter '{source}' holds one factor twice, as {other} and as {name}; remove one "
                "of them or save the adapter again"
            )


def check_values(source: Any, factors: Mapping[str, Factors]) -> None:
    """Raises :class:`InputError` for a layer whose values are too large to compute with.

    Neither a factor (with the scale, for B) nor a product of two entries may exceed 1e18, beyond
    which norms overflow in float32. Trained factors are many orders of magnitude below.
    """
    for path, (A, B, scale) in factors.items():
        largest_A, largest_B = largest(A), abs(scale) * largest(B)
        for value in (largest_A, largest_B, largest_A * largest_B):
            if not value <= LARGEST:  # a NaN is not
                raise InputError(
                    f"{source}, layer {path}: its update holds values of {value:.1e}, which "
                    "overflow in float32; was it trained until it diverged, or given a wrong "
                    "alpha or weight?"
                )


def largest(tensor: Tensor) -> float:
    """The largest magnitude, found without a copy; NaN if there is one."""
    low, high = (end.item() for end in torch.aminmax(tensor.detach()))
    return max(-low, high) if low <= high else math.nan


def balance_factors(factors: Factors) -> Factors:
    """The same update with factors of similar size, where one is too large or too small for
    float16.

    By a power of two, which changes no digit: a base in float16 computes the factors in it.
    """
    A, B, scale = factors
    sizes = [math.frexp(value)[1] for value in (largest(A), largest(B) * abs(scale))]
    if max(map(abs, sizes)) <= USUAL or not (A.any() and B.any()):
        return factors
    shift = (sizes[1] - sizes[0]) // 2
    return factors._replace(A=A * 2.0**shift, B=B * 2.0**-shift)
