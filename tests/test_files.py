"""Files are whole or absent, and what is read is checked."""

import gc
import json
import os
import pickle
import random
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from geodapt import files
from geodapt.errors import InputError
from geodapt.files import (
    atomic_folder,
    cache_folder,
    hash_tensors,
    read_json,
    read_tensors,
    sweep,
    write_bytes,
    write_json,
    write_tensors,
    write_text,
)

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Writing


def test_a_file_is_written_with_its_folders_and_replaced(tmp_path):
    path = tmp_path / "deep" / "er" / "file"
    write_bytes(path, b"one")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(path.parent) == ["file"]


def test_a_file_has_the_rights_that_the_user_asks_for(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "")
        with atomic_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_json_goes_through_and_has_no_nan(tmp_path):
    content = {"a": [1, 2.5, None, "é"], "b": {}}
    write_json(tmp_path / "a.json", content)
    assert (
        read_json(tmp_path / "a.json") == content == json.loads((tmp_path / "a.json").read_text())
    )
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "b.json", {"loss": float("nan")})
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff\xfe",
        b"",
        b"[" * 2000,
        b"[" * 200_000,
        b'"\\ud800"',
        b"9" * 5000,
        b'{"\\udfff": 1}',
    ],
)
def test_what_is_not_json(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")


def test_json_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_json(tmp_path / "a.json")


def test_equal_tensors_give_equal_bytes(tmp_path):
    """In every process, whatever the order of a hash table there."""
    tensors = {"ä": torch.arange(5), "b.c": torch.randn(3, 2)}
    metadata = {str(number): "x" * number for number in range(9)}
    contents = set()
    for number in range(8):
        path = tmp_path / f"{number}.safetensors"
        order = dict(sorted(metadata.items(), key=lambda item: hash((number, item[0]))))
        write_tensors(path, tensors, order)
        contents.add(path.read_bytes())
    (content,) = contents
    assert (8 + int.from_bytes(content[:8], "little")) % 8 == 0
    found = read_tensors(path)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt", **metadata}


# Folders


def test_a_folder_appears_when_it_is_whole(tmp_path):
    with atomic_folder(tmp_path / "deep" / "folder") as temporary:
        (temporary / "file").write_text("x")
        assert not (tmp_path / "deep" / "folder").exists()
    assert names(tmp_path / "deep") == ["folder"]
    assert names(tmp_path / "deep" / "folder") == ["file"]


def test_a_folder_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(FileExistsError), atomic_folder(tmp_path / "folder") as temporary:
        [(temporary / "inner").mkdir() for _ in range(2)]
    assert names(tmp_path) == []


@pytest.mark.parametrize("platform", [sys.platform, "elsewhere"])
def test_a_folder_is_replaced_as_a_whole(tmp_path, monkeypatch, platform):
    monkeypatch.setattr(files.sys, "platform", platform)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "folder"):
        raise RuntimeError
    assert names(tmp_path / "folder") == ["file"]
    with atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "file").write_text("new")
        (temporary / "more").write_text("more")
        assert names(tmp_path / "folder") == ["file"]
    assert names(tmp_path / "folder") == ["file", "more"]
    assert (tmp_path / "folder" / "file").read_text() == "new"
    assert names(tmp_path) == ["folder"]


def test_a_file_is_not_taken_for_a_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="file"), atomic_folder(tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_text() == "mine"
    assert names(tmp_path) == ["file"]


# A writer that is killed at any moment, and a reader beside it

WRITER = """
import sys
from pathlib import Path
from geodapt.files import atomic_folder, write_bytes
root, number = Path(sys.argv[1]), 0
while True:
    number += 1
    content = str(number).encode() * 20000
    write_bytes(root / "file", content)
    with atomic_folder(root / "folder") as folder:
        for name in "ab":
            (folder / name).write_bytes(content)
"""


def whole(content: bytes) -> bool:
    number = content[: len(content) // 20000]
    return bool(number) and content == number * 20000


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_whole_files(tmp_path):
    source = str(Path(files.__file__).parents[1])
    chance = random.Random(0)
    for _ in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], env={"PYTHONPATH": source}
        )
        while not (tmp_path / "folder").exists():
            assert writer.poll() is None
            time.sleep(0.001)
        stop = time.monotonic() + chance.uniform(0.05, 0.3)
        while time.monotonic() < stop:  # a reader never meets an absence or a half
            assert whole((tmp_path / "file").read_bytes())
            assert (tmp_path / "folder").is_dir()
        writer.kill()
        writer.wait()
        assert whole((tmp_path / "file").read_bytes())
        contents = [(tmp_path / "folder" / name).read_bytes() for name in "ab"]
        assert contents[0] == contents[1]
        assert whole(contents[0])
    sweep(tmp_path)
    assert names(tmp_path) == ["file", "folder"]


def test_sweeping_takes_only_what_was_left_unfinished(tmp_path):
    kept = [".hidden", ".git.unfinished.txt", "plain.unfinished", "sub"]
    for name in (*kept[:3], ".file.0123abcd.unfinished"):
        (tmp_path / name).write_text("")
    (tmp_path / "sub" / ".model.0123abcd.unfinished").mkdir(parents=True)
    sweep(tmp_path)
    assert names(tmp_path) == sorted(kept)
    assert names(tmp_path / "sub") == []


# Tensors


@pytest.mark.parametrize("mapped", [0, files.MAPPED], ids=["mapped", "whole"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_type_go_through(tmp_path, monkeypatch, dtype, mapped):
    monkeypatch.setattr(files, "MAPPED", mapped)
    tensors = {
        "matrix": torch.arange(6).reshape(2, 3).to(dtype),
        "turned": torch.arange(6).reshape(2, 3).to(dtype).T,
        "scalar": torch.tensor(1).to(dtype),
        "empty": torch.zeros(0, 3).to(dtype),
    }
    write_tensors(tmp_path / "a.safetensors", tensors, {"made": "here"})
    read = read_tensors(tmp_path / "a.safetensors")
    assert list(read) == sorted(tensors)
    for name, tensor in tensors.items():
        assert read[name].dtype == dtype
        assert read[name].shape == tensor.shape
        assert torch.equal(read[name].float(), tensor.float())
    assert hash_tensors(read) == hash_tensors(tensors)


def test_reading_small_files_for_days_takes_no_memory(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {f"{i}": torch.ones(2) for i in range(50)})
    read_tensors(tmp_path / "a.safetensors")
    tracemalloc.start()
    try:
        for _ in range(5):
            read_tensors(tmp_path / "a.safetensors")
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(40):
            read_tensors(tmp_path / "a.safetensors")
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 40 * 50 * 16  # a mapped file's tensors leave 64 bytes each


def test_a_tensor_file_says_that_it_is_torchs(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(1)}, {"made": "here"})
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "made": "here"}


def test_a_trained_parameter_is_written_as_its_values(tmp_path):
    parameter = torch.nn.Parameter(torch.ones(2))
    write_tensors(tmp_path / "a.safetensors", {"a": parameter})
    assert not read_tensors(tmp_path / "a.safetensors")["a"].requires_grad


def test_a_pickle_is_refused_unread(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    for name in ("a.bin", "a.pt", "a.pth", "a.ckpt", "a.pkl", "a.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        expected = "safetensors file" if name == "a.safetensors" else "is a pickle"
        with pytest.raises(InputError, match=expected):
            read_tensors(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@given(st.data())
def test_a_file_cut_short_anywhere_is_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cut")
    write_tensors(folder / "a.safetensors", {"a": torch.ones(4), "b": torch.ones(2, 2)})
    content = (folder / "a.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(InputError, match=r"cut\.safetensors is not a readable safetensors file"):
        read_tensors(folder / "cut.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2], ids=str)
def test_values_that_diverged_are_refused_by_name(tmp_path, value, dtype):
    tensors = {"fine": torch.ones(2), "broken": torch.tensor([1.0, value]).to(dtype)}
    write_tensors(tmp_path / "a.safetensors", tensors)
    with pytest.raises(InputError, match="tensor 'broken' holds NaN or infinite values"):
        read_tensors(tmp_path / "a.safetensors")


def test_tensors_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_tensors(tmp_path / "a.safetensors")


# Hashes


def test_a_hash_ignores_order_and_memory_layout():
    a, b = torch.arange(6.0).reshape(2, 3), torch.ones(2)
    assert hash_tensors({"a": a, "b": b}) == hash_tensors({"b": b, "a": a.T.contiguous().T})


@pytest.mark.parametrize(
    "other",
    [
        {"b": torch.zeros(2, 2)},
        {"a": torch.zeros(4)},
        {"a": torch.zeros(2, 2, dtype=torch.float64)},
        {"a": torch.tensor([[0.0, 0.0], [0.0, 1e-30]])},
        {"a": torch.zeros(2, 2), "b": torch.zeros(0)},
        {},
    ],
)
def test_a_hash_tells_names_shapes_types_and_values_apart(other):
    assert hash_tensors({"a": torch.zeros(2, 2)}) != hash_tensors(other)


# The cache


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODAPT_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("GEODAPT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "geodapt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "geodapt"
