"""Adapters of a folder: versions, leases, and no way out of the folder."""

import json
import shutil

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

from geodapt.adapters import Adapter, AdapterBank
from geodapt.errors import InputError
from geodapt.serve.adapter_folder import AdapterFolder
from geodapt.serve.requested_gate import UnknownModel
from tests.serve.opened import HOSTILE, opened
from tests.serve.shelf import small_base, write_adapter_folders


@pytest.fixture
def folder(adapters):
    place, bank = adapters
    return AdapterFolder(place, bank)


def test_an_adapter_is_read_when_it_is_first_asked_for(folder, adapters):
    place, bank = adapters
    assert folder.names() == ["tools", "toys"]
    assert len(bank) == 0
    lease = folder.lease(["toys"])
    (version,) = lease.versions.values()
    assert version == f"toys#{Adapter.from_pretrained(place / 'toys').sha256[:16]}"
    assert bank.names == [version]
    served = folder.served("toys")
    assert (served.loaded, served.requests, served.rank) == (True, 1, 4)
    lease.release()
    lease.release()
    assert folder.served("toys").requests == 0


def test_a_request_keeps_its_version_while_its_name_changes(folder, adapters):
    place, bank = adapters
    old = folder.lease(["toys"])
    shutil.copytree(place / "tools", place / "newer")
    folder.put("toys", "newer")
    new = folder.lease(["toys"])
    assert old.versions != new.versions
    assert set(bank.names) == {*old.versions.values(), *new.versions.values()}
    old.release()
    assert bank.names == list(new.versions.values())
    weights = Adapter.from_pretrained(place / "tools").sha256
    assert new.versions["toys"] == f"toys#{weights[:16]}"


def test_a_version_that_a_gate_holds_leaves_later(folder, adapters):
    _, bank = adapters
    lease = folder.lease(["toys"])
    with bank.use(lease.versions["toys"]):
        folder.delete("toys")
        lease.release()
        assert len(bank) == 1
    folder.lease(["tools"]).release()
    assert [name.partition("#")[0] for name in bank.names] == ["tools"]


def test_what_was_put_and_deleted_outlasts_the_server(folder, adapters):
    place, bank = adapters
    folder.put("drills", "tools")
    folder.delete("toys")
    shutil.rmtree(place / "tools")
    again = AdapterFolder(place, AdapterBank(bank.model))
    assert again.names() == ["drills"]
    assert again.lease(["drills"]).versions.keys() == {"drills"}
    with pytest.raises(UnknownModel, match="deleted"):
        again.lease(["toys"])


def test_deleting_again_is_an_error_unless_it_may_have_been_done(folder, adapters):
    place, _ = adapters
    folder.put("drills", "tools")
    folder.delete("drills")
    folder.delete("drills", missing_ok=True)
    with pytest.raises(UnknownModel):
        folder.delete("drills")
    folder.delete("toys")  # whose folder stays
    folder.delete("toys", missing_ok=True)
    assert json.loads((place / "aliases.json").read_text()) == {"toys": None}


def test_servers_that_share_a_folder_see_each_others_adapters(folder, adapters, tokenizer):
    place, _ = adapters
    other = AdapterFolder(place, AdapterBank(small_base(tokenizer)))
    folder.put("drills", "tools")
    assert "drills" in other
    assert other.lease(["drills"]).versions == folder.lease(["drills"]).versions
    other.delete("drills")
    assert "drills" not in folder


def test_an_adapter_of_another_base_is_refused_and_nothing_changes(folder, adapters, tokenizer):
    place, bank = adapters
    other = small_base(tokenizer, seed=1)
    other.resize_token_embeddings(300)
    for name, parameter in list(other.named_parameters()):
        if "q_proj" in name:
            layer = other.get_submodule(name.removesuffix(".weight"))
            layer.weight = torch.nn.Parameter(torch.zeros(48, parameter.shape[1]))
            layer.out_features = 48
    write_adapter_folders(other, place, ["foreign"])
    with pytest.raises(InputError, match="out_features"):
        folder.put("toys", "foreign")
    with pytest.raises(InputError):
        folder.lease(["foreign"])
    assert len(bank) == 0
    assert not (place / "aliases.json").exists()
    assert not (place / "sha256").exists()
    assert not list(place.glob("*.unfinished"))
    folder.lease(["toys"])


def test_at_most_so_many_stay_in_memory(adapters, tokenizer):
    place, bank = adapters
    write_adapter_folders(small_base(tokenizer), place, [f"a{n}" for n in range(6)])
    folder = AdapterFolder(place, bank, most_loaded=2)
    held = folder.lease(["a0", "a1", "a2"])
    for name in ("a3", "a4", "a5"):
        folder.lease([name]).release()
    loaded = {name.partition("#")[0] for name in bank.names}
    assert {"a0", "a1", "a2"} <= loaded
    held.release()
    assert len(bank) == 2


def refused_everywhere(folder, names):
    for name in names:
        with pytest.raises(InputError):
            folder.lease([name])
        with pytest.raises(InputError):
            folder.put("new", name)
        if name not in ("inner", "weights", "link"):
            with pytest.raises(InputError):
                folder.put(name, "toys")


def test_nothing_outside_of_the_folder_is_opened(folder, adapters, tmp_path):
    place, bank = adapters
    secret = tmp_path / "secret"
    shutil.copytree(place / "toys", secret)
    (place / "link").symlink_to(secret)
    (place / "inner").mkdir()
    (place / "inner/adapter_config.json").symlink_to(secret / "adapter_config.json")
    shutil.copy(place / "toys/adapter_model.safetensors", place / "inner")
    (place / "weights").mkdir()
    shutil.copy(place / "toys/adapter_config.json", place / "weights")
    (place / "weights/adapter_model.safetensors").symlink_to(secret / "adapter_model.safetensors")
    names = [*HOSTILE, "inner", "weights", str(secret)]
    with opened() as paths:
        refused_everywhere(folder, names)
    assert not [path for path in paths if str(secret) in path]
    assert len(bank) <= 1  # of 'toys', put under no name
    assert folder.names() == ["inner", "tools", "toys", "weights"]


def test_pickles_and_broken_files_are_refused(folder, adapters):
    place, bank = adapters
    shutil.copytree(place / "toys", place / "pickled")
    weights = place / "pickled/adapter_model.safetensors"
    weights.rename(place / "pickled/adapter_model.bin")
    shutil.copytree(place / "toys", place / "cut")
    weights = place / "cut/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    for name, says in (("pickled", "pickle"), ("cut", "safetensors")):
        with pytest.raises(InputError, match=says):
            folder.lease([name])
        with pytest.raises(InputError, match=says):
            folder.put(name)
    assert len(bank) == 0


def test_an_adapter_that_overflows_is_refused_by_its_name(folder, adapters):
    place, bank = adapters
    shutil.copytree(place / "toys", place / "huge")
    weights = place / "huge/adapter_model.safetensors"
    tensors = {name: torch.full_like(t, 1e30) for name, t in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    for refused in (lambda: folder.lease(["huge"]), lambda: folder.put("huge")):
        with pytest.raises(InputError, match=r"^adapter 'huge', layer .* overflow"):
            refused()
    assert len(bank) == 0


@pytest.mark.parametrize("content", ["[]", '{"../x": null}', '{"a": 3}', '{"a": "../../etc"}', "{"])
def test_a_broken_list_of_aliases_is_refused(adapters, content):
    place, bank = adapters
    (place / "aliases.json").write_text(content)
    with pytest.raises(InputError, match=r"aliases\.json"):
        AdapterFolder(place, bank)


def test_half_a_put_that_was_killed_is_swept(adapters):
    place, bank = adapters
    (place / ".abc.unfinished").mkdir()
    (place / "sha256").mkdir()
    (place / "sha256/.x.1234.unfinished").mkdir()
    (place / ".aliases.json.1234.unfinished").write_text("{")
    (place / "aliases.json").write_text(json.dumps({"toys": None}))
    assert AdapterFolder(place, bank).names() == ["tools"]
    assert not list(place.rglob("*.unfinished"))


def test_a_put_of_another_server_is_not_swept(folder, adapters):
    staged = folder.root / f".{'b' * 32}.unfinished"
    staged.mkdir()
    with FileLock(folder.root / ".puts.lock"):  # which another server holds while it puts
        AdapterFolder(folder.root, adapters[1])
        assert staged.is_dir()
    AdapterFolder(folder.root, adapters[1])
    assert not staged.exists()
