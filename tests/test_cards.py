"""Model cards say what a folder was made from, in the hub's form."""

from huggingface_hub import ModelCard

from geodapt.cards import is_hub_name, plain, short, write_card


def test_a_card_is_the_hubs_and_names_sources(tmp_path):
    write_card(
        tmp_path,
        "both",
        "Two adapters in one.",
        base="meta-llama/Llama-3.2-1B",
        relation="adapter",
        library="peft",
        tags=["lora"],
        facts={"method": "ties", "density": 0.25, "seed": None},
        sources=[{"adapter": "toys", "weight": 0.5, "sha256": "ab12"}, {"adapter": "books"}],
        usage="print(1)",
    )
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model == "meta-llama/Llama-3.2-1B"
    assert card.data.base_model_relation == "adapter"
    assert (card.data.library_name, card.data.tags) == ("peft", ["geodapt", "lora"])
    for line in (
        "# both",
        "| base | meta-llama/Llama-3.2-1B |",
        "| density | 0.25 |",
        "| toys | 0.5 | ab12 |",
        "| books |  |  |",
        "```python\nprint(1)\n```",
    ):
        assert line in card.text
    assert "seed" not in card.text


def test_a_card_that_somebody_else_wrote_stays(tmp_path):
    write_card(tmp_path, "one", "First.")
    write_card(tmp_path, "two", "Second.")
    assert "# two" in (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text("---\ntags:\n- other\n---\nMy words, and\n- geodapt\n")
    write_card(tmp_path, "three", "Third.")
    assert "My words" in (tmp_path / "README.md").read_text()


def test_names_say_no_paths_and_are_no_markup(tmp_path):
    assert short("/home/somebody/models/base/") == "base"
    assert short("owner/name") == "owner/name"
    assert not is_hub_name("../base")
    assert plain("a\x1b[2J|b\n# <b>") == r"a \[2J\|b \# \<b\>"
    write_card(tmp_path, "x", "y", base="/home/somebody/base", relation="adapter")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model is None
    assert "somebody" not in card.content
    assert "| base | base |" in card.content
