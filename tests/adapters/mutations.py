"""Adapter folders as they should not be: what a file's field, tensor or byte can be instead."""

import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Mutation = Callable[[Path], None]

FIELDS = (
    *("peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "r"),
    *("lora_alpha", "lora_dropout", "use_rslora", "use_dora", "fan_in_fan_out", "bias"),
    *("inference_mode", "init_lora_weights", "target_modules", "exclude_modules"),
    *("target_parameters", "modules_to_save", "layers_to_transform", "layers_pattern"),
    *("rank_pattern", "alpha_pattern", "loftq_config", "eva_config", "runtime_config"),
    *("peft_version", "megatron_core", "trainable_token_indices", "something_new"),
)
VALUES = {
    "null": None,
    "true": True,
    "zero": 0,
    "negative": -3,
    "fraction": 1.5,
    "huge": 1e308,
    "a 400-digit number": 10**400,
    "text": "16",
    "no text": "",
    "a path": "../../etc",
    "a long text": "é" * 100_000,
    "control characters": "\x1b]0;x\x07\n\0",
    "a surrogate": "\ud800",
    "a list": [1],
    "a list of lists": [[["LAYER"]]],
    "a list of nulls": [None],
    "a list with a wrong end": ["LAYER", 3],
    "a mapping": {"LAYER": 4},
    "a mapping to null": {"LAYER": None},
    "a mapping to text": {"LAYER": "big"},
    "a mapping to lists": {"LAYER": [4]},
    "a mapping to zero": {"LAYER": 0},
    "a mapping to much": {"LAYER": 1e308},
}
TEXTS = {
    "NaN": "NaN",
    "Infinity": "-Infinity",
    "beyond double": "1e999",
    "5,000 digits": "9" * 5000,
    "nested 300 deep": "[" * 300 + "]" * 300,
    "nested 100,000 deep": "[" * 100_000 + "]" * 100_000,
    "mappings nested 1,000 deep": '{"a":' * 1000 + "1" + "}" * 1000,
}
PATTERNS = (
    "([a-z.0-9]+)+Z",
    "(x+x+)+y|((a|a)*)*b",
    ".*" * 300 + "q",
    "(.*)" * 60 + "Z",
    "(?=((.*.*.*)*)*Z)",
    "((a{1000}){1000}){1000}",
    "[a-z]{2147483647}",
    "(" * 45 + "a*" + ")+" * 45 + "Z",
    "(" * 5000,
    "(" * 990 + ")" * 990,
    "LAYER(",
    "(?P<a>a)(?P<a>b)",
    "*",
    "\\",
    "[",
    "a{e<=100}",
    "(?<=a{1,9})b",
)


def crafted(layer: str) -> Iterator[tuple[str, Mutation]]:
    """Every mutation by name, of an adapter with a layer of this name."""
    for name, mutate in _crafted():
        yield name, named(mutate, layer)


def _crafted() -> Iterator[tuple[str, Mutation]]:
    for field in FIELDS:
        for name, value in VALUES.items():
            yield f"{field}: {name}", setting(field, value)
    for field in ("lora_alpha", "lora_dropout", "loftq_config", "rank_pattern", "something_new"):
        for name, text in TEXTS.items():
            yield f"{field}: {name}", setting_text(field, text)
    for pattern in PATTERNS:
        for field in ("target_modules", "exclude_modules"):
            yield f"{field}: pattern {pattern[:20]}", setting(field, pattern)
        for field in ("rank_pattern", "alpha_pattern"):
            yield f"{field}: pattern {pattern[:20]}", setting(field, {pattern: 4})
    many = {f"([a-z]+{i})+Z": 4 for i in range(5000)}
    yield "rank_pattern: 5,000 patterns", setting("rank_pattern", many)
    names = {f"{'a' * (i % 100)}.{i}": 4 for i in range(50_000)}
    yield "alpha_pattern: 50,000 names", setting("alpha_pattern", names)
    yield "target_modules: 100,000", setting("target_modules", ["LAYER", *map(str, range(10**5))])
    for content in (b"", b"{", b"[]", b"null", b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"{}" * 9):
        yield f"configuration {content[:6]!r}", writing(CONFIG, content)
        yield f"weights {content[:6]!r}", writing(WEIGHTS, content)
    for name, change in TENSORS.items():
        yield f"tensors: {name}", changing(change)
    for name, header in HEADERS.items():
        yield f"header: {name}", writing(WEIGHTS, header)


def named(mutate: Mutation, layer: str) -> Mutation:
    """The mutation with a layer's name for LAYER in the configuration."""

    def act(folder: Path) -> None:
        mutate(folder)
        content = (folder / CONFIG).read_bytes()
        (folder / CONFIG).write_bytes(content.replace(b"LAYER", layer.encode()))

    return act


def setting(field: str, value: object) -> Mutation:
    def change(folder: Path) -> None:
        content = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**content, field: value}))

    return change


def setting_text(field: str, text: str) -> Mutation:
    def change(folder: Path) -> None:
        content = json.loads((folder / CONFIG).read_text())
        written = json.dumps({**content, field: "@"})
        (folder / CONFIG).write_text(written.replace('"@"', text))

    return change


def writing(name: str, content: bytes) -> Mutation:
    return lambda folder: (folder / name).write_bytes(content) and None


def changing(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Mutation:
    def act(folder: Path) -> None:
        save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)

    return act


def every(function: Callable[[torch.Tensor], torch.Tensor]):
    return lambda tensors: {k: function(t).contiguous() for k, t in tensors.items()}


def one(function: Callable[[torch.Tensor], torch.Tensor]):
    def change(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        name = min(tensors)
        return {**tensors, name: function(tensors[name]).contiguous()}

    return change


def renamed(function: Callable[[str], str]):
    return lambda tensors: {function(name): tensor for name, tensor in tensors.items()}


def _with(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor.double().index_fill(0, torch.tensor(0), value)


def _infinite(tensor: torch.Tensor) -> torch.Tensor:
    return _with(float("inf"))(tensor).float()


TENSORS = {
    "float8": every(lambda t: t.to(torch.float8_e4m3fn)),
    "another float8": one(lambda t: t.to(torch.float8_e5m2)),
    "complex": every(lambda t: t.to(torch.complex64)),
    "complex NaN": one(lambda t: torch.complex(t, t * float("nan"))),
    "bool": every(lambda t: t > 0),
    "int8": one(lambda t: t.to(torch.int8)),
    "int64": every(lambda t: t.to(torch.int64)),
    "NaN": one(_with(float("nan"))),
    "infinity": one(_infinite),
    "1e30": one(lambda t: t * 1e30),
    "all 1e30": every(lambda t: t * 1e30),
    "beyond float32": one(_with(1e300)),
    "1e12 each": every(lambda t: t * 1e12),
    "subnormal": every(lambda t: t * 1e-40),
    "zero": every(torch.zeros_like),
    "no rows": every(lambda t: t[:0]),
    "no columns": one(lambda t: t[:, :0]),
    "one dimension": one(lambda t: t[0]),
    "a dimension more": one(lambda t: t[None]),
    "10 dimensions": one(lambda t: t.view(*t.shape, *[1] * 8)),
    "40 dimensions": one(lambda t: t.view(*t.shape, *[1] * 38)),
    "no dimension": one(lambda t: t[0, 0]),
    "transposed": every(lambda t: t.T),
    "another rank": one(lambda t: t.repeat(2, 1)),
    "rank 100,000": lambda tensors: {
        k: t.repeat(25_000, 1) if "lora_A" in k else t.repeat(1, 25_000)
        for k, t in list(tensors.items())[:2]
    },
    "a second prefix": lambda tensors: {
        **tensors,
        **{k.removeprefix("base_model.model."): 2 * t for k, t in tensors.items()},
    },
    "a second name": lambda tensors: {
        **tensors,
        **{k.replace("lora_A", "lora_A.default"): 2 * t for k, t in tensors.items()},
    },
    "no prefix": renamed(lambda name: name.removeprefix("base_model.model.")),
    "long names": renamed(lambda name: name.replace("layer", "layer" * 10_000)),
    "a control character": renamed(lambda name: name.replace("layer", "lay\x1b[31mer")),
    "another layer": renamed(lambda name: name.replace("layer", "block")),
    "an embedding": lambda tensors: {
        **tensors,
        "base_model.model.embed_tokens.lora_embedding_A": torch.zeros(2, 3),
    },
    "a stray": lambda tensors: {**tensors, "lm_head.weight": torch.zeros(2, 3)},
    "a stray magnitude": lambda tensors: {
        **tensors,
        min(tensors).replace("lora_A.weight", "lora_magnitude_vector"): torch.ones(3),
    },
    "half": lambda tensors: dict(list(tensors.items())[1:]),
    "nothing": lambda tensors: {},
}


def header(content: object, data: bytes = b"") -> bytes:
    """A safetensors file with any header."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + data


def _entry(dtype: object = "F32", shape: object = (1,), ends: object = (0, 4)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": ends}


KEY = "base_model.model.a.lora_A.weight"
HEADERS = {
    "a length beyond the file": struct.pack("<Q", 2**60) + b"{}",
    "a negative length": b"\xff" * 8 + b"{}",
    "not JSON": header(b"\x00\x01\x02"),
    "nested": header(b"[" * 50_000),
    "a list": header([1, 2]),
    "no entries": header({}),
    "an entry that is a list": header({KEY: [1]}),
    "no shape": header({KEY: {"dtype": "F32"}}),
    "a negative shape": header({KEY: _entry(shape=[-1])}, b"\0" * 4),
    "a shape of text": header({KEY: _entry(shape="many")}, b"\0" * 4),
    "a shape of booleans": header({KEY: _entry(shape=[True])}, b"\0" * 4),
    "2,000 dimensions": header({KEY: _entry(shape=[1] * 2000)}, b"\0" * 4),
    "a shape beyond 64 bits": header({KEY: _entry(shape=[2**70, 2**70])}, b"\0" * 4),
    "a shape of much": header({KEY: _entry(shape=[2**31, 2**31])}, b"\0" * 4),
    "an unknown type": header({KEY: _entry(dtype="F7")}, b"\0" * 4),
    "a type that is a list": header({KEY: _entry(dtype=["F32"])}, b"\0" * 4),
    "overlapping data": header({KEY: _entry(), KEY + "2": _entry()}, b"\0" * 4),
    "data that is not there": header({KEY: _entry(ends=[0, 400])}, b"\0" * 4),
    "metadata of numbers": header({"__metadata__": {"a": 1}, KEY: _entry()}, b"\0" * 4),
    "metadata that is a list": header({"__metadata__": [1], KEY: _entry()}, b"\0" * 4),
}


def large() -> Iterator[tuple[str, Mutation]]:
    """Headers that are large themselves: they take seconds to make."""
    layers = {
        f"base_model.model.model.layers.{i}.mlp.{name}.lora_{side}.weight": _entry(
            shape=(1, 1), ends=(4 * (4 * i + 2 * j + k), 4 * (4 * i + 2 * j + k + 1))
        )
        for i in range(50_000)
        for j, name in enumerate(("up_proj", "down_proj"))
        for k, side in enumerate("AB")
    }
    yield "100,000 layers", writing(WEIGHTS, header(layers, b"\0" * 800_000))
    yield "a key of 1 MB", writing(WEIGHTS, header({"a" * 10**6: _entry()}, b"\0" * 4))
    entry = b'"' + b"a" * 200 + b'":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},'
    yield "a header of 90 MB", writing(WEIGHTS, header(b"{" + entry * 360_000 + b'"b":1}'))


def at_random(seed: int) -> Mutation:
    """A few bytes or fields changed, wherever they are."""
    rng = random.Random(seed)

    def change(folder: Path) -> None:
        path = folder / rng.choice([CONFIG, WEIGHTS])
        content = bytearray(path.read_bytes())
        for _ in range(rng.choice([1, 1, 2, 8])):
            at = rng.randrange(len(content))
            match rng.randrange(4):
                case 0:
                    content[at] ^= 1 << rng.randrange(8)
                case 1:
                    content[at] = rng.choice(b'0123456789{}[]",:.-eEN \\\x00\xff')
                case 2:
                    del content[at : at + rng.randrange(1, 9)]
                case 3:
                    content[at:at] = content[at : at + rng.randrange(1, 40)]
        path.write_bytes(content)

    return change
