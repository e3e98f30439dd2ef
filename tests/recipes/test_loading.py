"""From a name to a validated recipe, and what is said when that fails."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import TinyRecipe

from geodapt.data import settings as data_settings
from geodapt.errors import InputError
from geodapt.recipes import catalog
from geodapt.recipes.loading import load_recipe
from geodapt.recipes.running import prepare_recipe


def message(name, *overrides) -> str:
    with pytest.raises(InputError) as caught:
        load_recipe(name if isinstance(name, str) else name.name, overrides)
    return str(caught.value)


def with_lines(tiny: Path, *lines: str) -> Path:
    """The recipe with lines added; its own are the first eleven."""
    tiny.write_text(tiny.read_text() + "\n".join(lines) + "\n")
    return tiny


def test_a_file_becomes_its_systems_recipe(tiny):
    loaded = load_recipe(str(tiny))
    assert loaded.name == "tiny"
    assert isinstance(loaded.recipe, TinyRecipe)
    assert loaded.recipe.training.learning_rate == 0.01
    assert loaded.recipe.data.path == "ratings"


def test_overrides_win_and_are_validated(tiny):
    recipe = load_recipe(
        "tiny.yaml", ["training.epochs=7", "sources=[pandas]", "data={kind: hub, name: 5-core}"]
    ).recipe
    assert recipe.training.epochs == 7
    assert recipe.training.learning_rate == 0.01
    assert recipe.sources == ["pandas"]
    assert recipe.data.name == "5-core"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["trainig: {}"], "tiny.yaml:11: unknown key 'trainig'; did you mean 'training'?"),
        (["pause: slow"], "tiny.yaml:11: pause: expected a valid number, got 'slow'"),
        (["seed: 1.5"], "tiny.yaml:11: seed: expected a valid integer, got 1.5"),
        (["seed:"], "tiny.yaml:11: seed: expected a valid integer, got nothing"),
        (["seed: {a: 1}"], "tiny.yaml:11: seed: expected a valid integer, got a mapping"),
        (["fail: bugs"], "tiny.yaml:11: fail: expected 'no', 'input', 'bug' or 'interrupt', got "
         "'bugs'; did you mean 'bug'?"),
        (["weights:", "  a: 1", "  b: x"],
         "tiny.yaml:13: weights.b: expected a valid number, got 'x'"),
        (["more:", "- kind: hub", "  name: x", "- kind: hubb"],
         "tiny.yaml:14: more.1.kind: unknown value 'hubb'; did you mean 'hub'?"),
        (["more:", "- name: x"],
         "tiny.yaml:12: the key 'kind' is missing in 'more.0': one of 'folder', 'hub'"),
        (["more:", "- kind: folder"],
         "tiny.yaml:12: the key 'path' is missing in 'more.0': Folder with one file a domain."),
        (["more:", "- kind: hub", "  name: x", "  nme: y"],
         "tiny.yaml:14: unknown key 'nme' in 'more.0' of kind hub; did you mean 'name'?"),
        (["more:", "- kind: hub", "  name: x", "  zz: y"],
         "tiny.yaml:14: unknown key 'zz' in 'more.0' of kind hub; expected one of 'kind', 'name'"),
    ],
)  # fmt: skip
def test_an_error_points_at_the_line_and_says_what_was_meant(tiny, lines, expected):
    assert message(with_lines(tiny, *lines)) == expected


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.learning_rat=1",
         "unknown key 'learning_rat' in 'training'; did you mean 'learning_rate'?"),
        ("training.epochs=0", "training.epochs: expected greater than or equal to 1, got 0"),
        ("training.batch_size=big", "training.batch_size: expected a valid integer or 'auto', "
         "got 'big'"),
        ("training=fast", "training: expected a mapping of keys, got 'fast'"),
        ("data.kind=hubb", "data.kind: unknown value 'hubb'; did you mean 'hub'?"),
        ("data={path: x}", "the key 'kind' is missing in 'data': one of 'folder', 'hub'"),
        ("sources=[a, b, c, d, e]", "sources: list should have at most 4 items, not 5"),
        ("sources=[a, a]", "sources: a source stands there twice"),
        ("sources.1={}", "sources.1: expected a valid string, got an empty mapping"),
    ],
)  # fmt: skip
def test_an_error_in_an_override_quotes_it(tiny, override, expected):
    assert message(tiny, override) == f"override '{override}': {expected}"


def test_all_errors_are_told_in_the_files_order(tiny):
    text = message(with_lines(tiny, "seed: x", "titel: y"), "training.epochs=0", "data.pth=1")
    assert [line.split(": ")[0] for line in text.splitlines()] == [
        "tiny.yaml:11",
        "tiny.yaml:12",
        "override 'training.epochs=0'",
        "override 'data.pth=1'",
    ]


def test_a_missing_key_at_the_top(tiny):
    tiny.write_text("recipe: tiny\n")
    assert message(tiny) == "tiny.yaml: the key 'data' is missing"


def test_an_unknown_system(tiny):
    assert message(tiny, "recipe=tny") == (
        "override 'recipe=tny': unknown system 'tny'; did you mean 'tiny'?"
    )
    unknown = message(tiny, "recipe=7")
    assert "unknown system 7; there are: " in unknown
    assert "xcross" in unknown
    assert "unknown system ['tiny']" in message(tiny, "recipe=[tiny]")
    tiny.write_text("title: nothing\n")
    assert message(tiny).startswith("tiny.yaml lacks the key 'recipe', which names the system")


def test_an_unknown_recipe_tells_the_nearest(tiny, monkeypatch):
    monkeypatch.setattr(catalog, "FOLDER", tiny.parent)
    assert load_recipe("tiny").name == "tiny"
    assert message("tinny") == (
        "there is no recipe 'tinny'; did you mean 'tiny'? ('geodapt ls' lists them all)"
    )


def test_a_file_is_named_as_it_was_given(tiny):
    with_lines(tiny, "sed: 1")
    assert message(str(tiny)).startswith(f"{tiny}:11: unknown key 'sed'")


def test_a_file_that_is_not_there(tiny):
    for name in ("other.yaml", "some/where"):
        assert message(name).startswith(f"recipe file '{name}' does not exist")


def test_every_ready_made_recipe_is_valid_and_described():
    for name, entry in catalog.packaged().items():
        assert entry.title, name
        assert load_recipe(name).recipe.recipe == entry.system


def test_ready_made_trainings_draw_validation_curves():
    for name, entry in catalog.packaged().items():
        if entry.system == "xcross":
            found = load_recipe(name).recipe
            for training in (found.lora_training, found.training):
                assert training.steps / 5 <= training.evaluate_every <= training.steps / 2, name


MISTAKES = {
    "segment run none.png --words a": "picture 'none.png' does not exist",
    "segment ./a here.png --words a": "model './a' is not a folder",
    "detect here.png here.png --words a": "model 'here.png' is not a folder",
    "detect run here.png --words a,,b": "holds an empty word",
    "panoptic run here.png --words a --out x.jpg": "ends with .png",
    "merge ./a ./b --out new": "adapter './a' is not a folder",
    "merge ./a ./b --out full": "holds other files",
    "merge full full --search none.jsonl --out new": "none.jsonl does not exist",
    "merge full full --search words.csv --out new": "words.csv, line 1",
    "merge full full --method atoms --calibration none.txt --out new": "none.txt does not exist",
    "merge full full --method atoms --calibration docs --base ./a --out new": "base './a' does",
    "adapters info ./a": "adapter './a' is not a folder",
    "convert-helm none.pt --out new": "none.pt does not exist",
    "probe none.csv": "none.csv does not exist",
    "probe ./a": "base './a' does not exist",
    "probe full": "base 'full' is a folder without config.json",
    "probe words.csv --columns 3": "words.csv has no column '3'",
    "probe here.png": "here.png is of no known kind",
    "compress minilm --method none --out new": "no method 'none'",
    "compress minilm --out new": "needs to know how small",
    "compress ./a --method int8 --out new": "base './a' does not exist",
    "compress minilm --method int8 --out full": "full is not empty",
    "run demo --out full": "full is not empty",
    "run demo base=./a": "base './a' does not exist",
    "run radial-text base=./a": "base './a' does not exist",
    "run evaluate-lm model=./a text=here.png tasks=[]": "base './a' does not exist",
    "run prompts base=./a data={kind: folders, path: full}": "base './a' does not exist",
    "score none.jsonl --embed minilm --out new": "none.jsonl does not exist",
    "score here.png --generate ./a --out new": "base './a' does not exist",
    "score here.png --generate minilm --adapters ./a --out new": "folder a is no folder",
    "score here.png --embed full --out new": "base 'full' is a folder without config.json",
    "score here.png --rank ./a --out new": "model './a' is not a folder",
    "score here.png --classify here.png --out new": "model 'here.png' is not a folder",
    "serve": "name what to serve",
    "serve ./a": "base './a' does not exist",
    "serve minilm --adapters here.png": "folder here.png is no folder",
    "serve --embed ./a": "base './a' does not exist",
    "serve --rank ./a": "model './a' is not a folder",
    "serve --classify ./a --embed minilm": "model './a' is not a folder",
    "serve --embed minilm --api-key-file none": "none does not exist",
    "serve --embed minilm --host 0.0.0.0": "can be reached from other machines",
    "serve --embed minilm --host 192.0.2.1 --api-key 12345678": "cannot be listened on",
}


@pytest.mark.slow
def test_mistakes_are_told_before_anything_heavy_is_imported(tmp_path):
    """At once, not after the seconds that torch and transformers take."""
    (tmp_path / "here.png").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "words.csv").write_text("a,b\nc,d\n")
    check = """
import contextlib, io, json, sys
for name in ("torch", "transformers", "datasets", "peft"):
    sys.modules[name] = None  # an import of it raises
from geodapt.cli.app import app
told = []
for words in json.loads(sys.argv[1]):
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            app(words, prog_name="geodapt")
    except SystemExit as end:
        told.append([end.code, said.getvalue()])
print(json.dumps(told))
"""
    commands = [re.findall(r"\S+=\{[^}]*\}|\S+", command) for command in MISTAKES]
    done = subprocess.run(
        [sys.executable, "-c", check, json.dumps(commands)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for (command, said), (code, told) in zip(MISTAKES.items(), found, strict=True):
        assert (code, said in told) == (2, True), (command, told)


@pytest.mark.slow
def test_recipes_are_checked_before_anything_heavy_is_imported():
    """A typo is told at once, not after the seconds that torch and transformers take."""
    check = """
import sys
for name in ("torch", "transformers", "datasets", "peft", "pandas"):
    sys.modules[name] = None  # an import of it raises
from geodapt.recipes.catalog import packaged
from geodapt.recipes.loading import load_recipe
for name in packaged():
    load_recipe(name)
print(len(packaged()))
"""
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


def test_another_kind_by_override_leaves_the_old_kinds_keys_behind(tiny):
    recipe = load_recipe("tiny.yaml", ["data.kind=hub", "data.name=5-core"]).recipe
    assert recipe.data.name == "5-core"
    with pytest.raises(InputError, match=r"unknown key 'path' in 'data' of kind hub \(folder has"):
        load_recipe("tiny.yaml", ["data.kind=hub", "data.name=x", "data.path=y"])


def test_a_key_of_another_kind_is_told_as_that():
    text = message("xcross", "data.path=reviews/")
    assert "unknown key 'path' in 'data' of kind api_calls" in text
    assert "(amazon, movielens, csv or jsonl or parquet, classification have it)" in text


def test_own_sequences_take_one_step(tmp_path):
    recipe = load_recipe(
        "xcross", ["data.kind=csv", f"data.path={tmp_path}/a.csv", "sources=[a, b]", "target=c"]
    ).recipe
    assert (recipe.data.kind, recipe.data.user) == ("csv", "user")


@pytest.mark.parametrize("name", ["demo", "xcross", "radial-text", "radial-query"])
def test_a_missing_package_is_told_before_the_recipe_runs(name, monkeypatch):
    monkeypatch.setitem(data_settings.PACKAGES, "scikit-learn", "no_such_module")
    words = ["target=scikit-learn"] if name == "xcross" else []
    with pytest.raises(InputError, match=r"scikit-learn, which is not installed: .*\[demo\]"):
        prepare_recipe(name, words, smoke=False)


def test_a_recipe_on_other_data_needs_no_package_of_the_demo(monkeypatch, tmp_path):
    (tmp_path / "sales.csv").touch()
    for package in data_settings.DEMO:
        monkeypatch.setitem(data_settings.PACKAGES, package, "no_such_module")
    path = f"data.path={tmp_path / 'sales.csv'}"
    words = ["data.kind=csv", path, "sources=[toys, tools]", "target=garden"]
    assert prepare_recipe("demo", words, smoke=False).recipe.data.kind == "csv"
    words = ["sources=[numpy, pandas]", "target=scipy"]
    assert prepare_recipe("demo", words, smoke=False).recipe.target == "scipy"


THREE = ["sources=[a, b]", "target=c"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("xcross", ["data.kind=csv", *THREE]),
        ("xcross-movielens", []),
        ("radial-hierarcaps", []),
        ("radial-text", ["data.kind=edges"]),
        ("xcross-classification", []),
        ("xcross", ["data={kind: amazon, path: ./nothing-here.csv, domains: [x]}", *THREE]),
        ("prompts", ["data={kind: table, path: nothing-here.csv}"]),
        ("prompts", ["data={kind: folders, path: nothing-here.csv}"]),
        ("hyperclip", ["base=some/clip"]),
        ("radial-query", ["data={kind: edges, path: nothing-here.csv}"]),
        ("helm-tiny", ["data.kind=text"]),
    ],
)
def test_a_missing_file_is_told_before_the_recipe_runs(name, words):
    with pytest.raises(InputError, match=r"nothing-here.csv' does not exist"):
        prepare_recipe(name, ["data.path=nothing-here.csv", *words], smoke=True)


@pytest.fixture
def without_fonts(monkeypatch):
    """A machine without the extra ``glyphs``."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "fontTools" else found(name)
    )


@pytest.fixture
def own_files(monkeypatch, tmp_path):
    """The current folder, with what the recipes below name in it."""
    for name in ("pictures", "boxes", "names.txt", "tree.csv", "omniglot.zip"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


OWN = "{kind: folders, path: pictures}"
BOXES = "{kind: yolo, images: pictures, labels: boxes, classes: names.txt}"
DRAWN = {
    "pages": "recipe: hyperclip",
    "another CLIP's pages": "recipe: hyperclip\nbase: some/clip",
    "a base for boxes": f"recipe: hyperclip-detection\ndata: {BOXES}\ntest: {BOXES}",
    "a base for pictures": f"recipe: prompts\ndata: {OWN}",
    "characters": "recipe: prompts\nbase: some/clip\ndata: {kind: characters}",
    "further pictures": "recipe: prompts\nbase: some/clip\n"
    f"data: {OWN}\nfurther: [{{kind: omniglot, path: omniglot.zip}}]",
    "a teacher": f"recipe: prompts\nbase: some/clip\ndata: {OWN}\nlearner: promptkd\n"
    "teacher: tuned\nteacher_base: clip-glyphs",
    "a tuned base": "recipe: radial\nbase: clip-glyphs\ndata: {kind: edges, path: tree.csv}",
}
NOT_DRAWN = {
    "masks": "recipe: hyperclip-pictures\nbase: some/clip\ndata: {path: pictures}",
    "boxes": f"recipe: hyperclip-detection\nbase: some/clip\ndata: {BOXES}\ntest: {BOXES}",
    "prompts": f"recipe: prompts\nbase: some/clip\ndata: {OWN}",
    "lathadapter": f"recipe: lathadapter\nbase: some/clip\ndata: {OWN}",
}


@pytest.mark.parametrize("text", DRAWN.values(), ids=DRAWN)
def test_recipes_that_draw_ask_for_what_draws(text, without_fonts, own_files):
    (own_files / "own.yaml").write_text(text)
    with pytest.raises(InputError, match=r"fontTools, which is not installed: .*\[glyphs\]"):
        prepare_recipe("own.yaml", [], smoke=False)


@pytest.mark.parametrize("text", NOT_DRAWN.values(), ids=NOT_DRAWN)
def test_recipes_on_a_clip_and_pictures_of_ones_own_draw_nothing(text, without_fonts, own_files):
    (own_files / "own.yaml").write_text(text)
    assert prepare_recipe("own.yaml", [], smoke=False)


def test_a_part_that_is_given_in_some_keys_keeps_the_recipe_s_defaults_of_the_others(tmp_path):
    whole = load_recipe("prompts-glyphs").recipe.model_dump()
    given = load_recipe(
        "prompts-glyphs", ["glyph_base.training.steps=7", "teacher_glyphs.training.batch_size=9"]
    ).recipe.model_dump()
    assert given["glyph_base"]["training"].pop("steps") == 7
    assert whole["glyph_base"]["training"].pop("steps") == 1200
    assert given["teacher_glyphs"]["training"].pop("batch_size") == 9
    assert whole["teacher_glyphs"]["training"].pop("batch_size") == 64
    assert given == whole

    own = tmp_path / "own.yaml"  # a file of the user's, and data of another kind
    own.write_text("recipe: helm\ntraining: {steps: 3}\ndata: {kind: text, path: .}\n")
    recipe = load_recipe(str(own)).recipe
    assert (recipe.training.steps, recipe.training.warmup) == (3, 0.05)
    assert recipe.training.schedule == "cosine"
    assert recipe.data.kind == "text"
