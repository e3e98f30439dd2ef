"""The built-in data: a real package from end to end, the cache, and what can be wrong."""

import threading

import datasets
import networkx
import pytest
from pydantic import TypeAdapter

from geodapt.data import ApiCallSettings, DataSettings, api_calls, load_domains, module_tree
from geodapt.errors import InputError

# Thirty functions in a package of its own, called in pairs by test files: a domain to be mined.
FILES = {
    "__init__.py": "".join(f"def f{n}():\n    'Does {n}.'\n" for n in range(30)),
    **{
        f"tests/test_{file}.py": "from toybox import *\n"
        + "".join(
            f"def test_{n}():\n    f{n}(), f{(n + 1 + file) % 30}(), f{(n + 2 + 3 * file) % 30}()\n"
            for n in range(30)
        )
        for file in range(9)
    },
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODAPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "api_calls"


@pytest.fixture
def toy_domain(toybox, cache, monkeypatch):
    monkeypatch.syspath_prepend(str(toybox))
    monkeypatch.setitem(api_calls.PACKAGES, "toybox", "toybox")
    return ApiCallSettings(domains=["toybox"], negatives=19)


@pytest.fixture(scope="module")
def real(own_cache):
    return load_domains(ApiCallSettings(domains=["networkx"]))["networkx"]


@pytest.mark.slow
def test_a_real_package_gives_enough_of_everything(real):
    assert len(real.items) > 300
    assert len(real.splits["train"]) > 800
    assert len(real.splits["test"]) > 150


def test_items_are_what_the_package_exports(real):
    for name, text in zip(real.items["name"], real.items["text"], strict=True):
        value = networkx
        for part in name.split(".")[1:]:
            value = getattr(value, part)
        assert callable(value)
        assert text.startswith(name)
    texts = dict(zip(real.items["name"], real.items["text"], strict=True))
    assert texts["networkx.path_graph"] == (
        "networkx.path_graph: Returns the Path graph `P_n` of linearly connected nodes."
    )
    # Of three names for one function the one that is used, and one item for all three.
    aliases = {"networkx.gnp_random_graph", "networkx.binomial_graph", "networkx.erdos_renyi_graph"}
    assert len(aliases & {*texts}) == 1
    assert not any("assert" in name or "tests" in name for name in texts)


def test_rows_keep_the_promises(real):
    looks = []
    files = {}
    for split, rows in real.splits.items():
        files[split] = {user.split("::")[0] for user in rows["user"]}
        for row in rows.to_list():
            assert 1 <= len(row["history"]) <= 8
            assert len(set(row["negatives"])) == 29
            assert row["target"] not in row["history"]
            assert not {*row["negatives"]} & {row["target"], *row["history"]}
            looks.append((*row["history"], row["target"]))
    assert len(looks) == len(set(looks))
    assert not files["train"] & files["test"]
    assert not files["train"] & files["validation"]
    assert not files["validation"] & files["test"]


def test_every_item_is_in_three_bodies_or_more(real):
    users = {}
    for rows in real.splits.values():
        for row in rows.to_list():
            for item in [*row["history"], row["target"]]:
                users.setdefault(item, set()).add(row["user"])
    # Rows are deduplicated and cut after the k-core, so a few items are seen less often here.
    assert sum(len(found) >= 3 for found in users.values()) > 0.8 * len(real.items)


def test_module_tree_spells_the_names(real):
    edges = module_tree({"networkx": real})
    assert ("networkx", "networkx.path_graph") in edges
    assert ("networkx.algorithms", "networkx.algorithms.bipartite") in edges
    parents = dict((child, parent) for parent, child in edges)
    assert len(parents) == len(edges)  # a tree: one parent each
    for name in real.items["name"]:
        while name in parents:
            name = parents[name]
        assert name == "networkx"


def test_the_cache_is_used(toy_domain, cache, monkeypatch):
    first = load_domains(toy_domain)["toybox"]
    assert (cache / "toybox-1.0-mined2" / "bodies").is_dir()

    def fail(*_, **__):
        raise AssertionError("mined again")

    monkeypatch.setattr(api_calls, "run_script", fail)
    again = load_domains(toy_domain)["toybox"]
    for split in first.splits:
        assert first.splits[split].to_dict() == again.splits[split].to_dict()
    monkeypatch.setattr(api_calls, "MINING_VERSION", 99)
    with pytest.raises(AssertionError, match="mined again"):
        load_domains(toy_domain)


@pytest.mark.slow
def test_a_kill_leaves_no_cache(toy_domain, cache, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(datasets.Dataset, "save_to_disk", killed)
        with pytest.raises(KeyboardInterrupt):
            load_domains(toy_domain)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    assert len(load_domains(toy_domain)["toybox"].items) == 30


def test_two_at_once_mine_once(toy_domain, monkeypatch):
    mined = []
    original = api_calls.run_script

    def counted(*arguments, **options):
        mined.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(api_calls, "run_script", counted)
    threads = [
        threading.Thread(target=api_calls.mine_packages, args=(["toybox"],)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(mined) == 1


def test_domains_come_in_the_order_asked_for(toy_domain, monkeypatch):
    monkeypatch.setitem(api_calls.PACKAGES, "again", "toybox")
    monkeypatch.setattr(api_calls.importlib.metadata, "version", lambda package: "1.0")
    for names in (["toybox", "again"], ["again", "toybox"]):
        domains = load_domains(toy_domain.model_copy(update={"domains": names}))
        assert list(domains) == names
        assert [domain.name for domain in domains.values()] == names


def test_the_modules_name_is_a_name_too():
    assert api_calls.distribution("sklearn") == "scikit-learn"
    assert api_calls.distribution("scikit-learn") == "scikit-learn"


def test_an_unknown_domain():
    with pytest.raises(InputError, match=r"unknown domain 'sympi': did you mean 'sympy'\?"):
        load_domains(ApiCallSettings(domains=["sympi"]))


def test_a_missing_package(monkeypatch):
    monkeypatch.setitem(api_calls.PACKAGES, "scikit-learn", "no_such_module")
    with pytest.raises(InputError, match=r"not installed: pip install .*\[demo\]"):
        load_domains(ApiCallSettings(domains=["scikit-learn"]))


def test_a_package_that_does_not_import(toy_domain, toybox, cache):
    path = toybox / "toybox" / "__init__.py"
    whole = path.read_text()
    path.write_text("raise OSError('libgfortran is missing')")
    try:
        with pytest.raises(InputError, match=r"toybox could not be read.*libgfortran is missing"):
            load_domains(toy_domain)
    finally:
        path.write_text(whole)
    assert [found.suffix for found in cache.iterdir()] == [".lock"]


def test_too_few_items(toy_domain):
    settings = toy_domain.model_copy(update={"negatives": 50})
    with pytest.raises(InputError, match="domain 'toybox' has 30 items, too few for 50 negatives"):
        load_domains(settings)


def test_settings_come_from_yaml_by_their_kind():
    settings = TypeAdapter(DataSettings).validate_python({"kind": "api_calls", "history": 3})
    assert isinstance(settings, ApiCallSettings)
    assert settings.history == 3
