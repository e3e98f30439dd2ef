"""Vectors and similarities of every family beside transformers' own forward."""

import pytest
import torch
from torch.nn.functional import normalize

from geodapt.errors import InputError
from geodapt.vision import BEST_SEVEN, IMAGENET, Clip, Prompts, embed_classes, load_clip, prompts_on
from geodapt.vision.templates import embed_synonyms, fill_templates
from tests.vision.duals import FAMILIES, POSITIONS, TEXTS, dual, pictures


@pytest.fixture(scope="module", params=FAMILIES)
def clip(request) -> Clip:
    return dual(request.param)


def own_inputs(clip: Clip, texts=TEXTS):
    """What the family's documentation passes to the model."""
    padding = "max_length" if "siglip" in clip.name else True
    tokens = clip.processor.tokenizer(
        texts, padding=padding, max_length=POSITIONS, return_tensors="pt"
    )
    tokens.pop("token_type_ids", None)
    if "siglip" in clip.name:
        tokens.pop("attention_mask")  # its released tokenizers make none
    images = clip.processor.image_processor(pictures(), return_tensors="pt")
    return dict(tokens), dict(images)


@torch.no_grad()
def test_similarities_are_those_of_the_models_own_forward(clip):
    tokens, images = own_inputs(clip)
    wanted = clip.model(**tokens, **images)
    texts, vectors = clip.embed_texts(TEXTS), clip.embed_images(pictures())
    torch.testing.assert_close(clip.logits(vectors, texts), wanted.logits_per_image)
    torch.testing.assert_close(texts, wanted.text_embeds)
    torch.testing.assert_close(vectors, wanted.image_embeds)
    # The same towers on the same input: bit for bit.
    assert torch.equal(
        clip.text_vectors(clip.tokens(TEXTS)),
        normalize(clip.model.get_text_features(**tokens).pooler_output, dim=-1),
    )
    assert torch.equal(
        clip.image_vectors(clip.pixels(pictures())),
        normalize(clip.model.get_image_features(**images).pooler_output, dim=-1),
    )


@torch.no_grad()
def test_texts_trimmed_to_the_longest_equal_texts_at_full_length(clip):
    short = clip.tokens(TEXTS)
    whole = dict(
        clip.processor.tokenizer(
            TEXTS, padding="max_length", max_length=POSITIONS, return_tensors="pt"
        )
    )
    whole = {name: whole[name] for name in short}
    assert (short["input_ids"].shape[1] == POSITIONS) == ("siglip" in clip.name)
    torch.testing.assert_close(clip.text_vectors(short), clip.text_vectors(whole))


@torch.no_grad()
def test_token_embeddings_equal_their_tokens(clip):
    tokens = clip.tokens(TEXTS)
    embedding = clip.model.text_model.embeddings.token_embedding
    found = clip.text_from_embeddings(embedding(tokens["input_ids"]), tokens)
    assert torch.equal(found, clip.text_vectors(tokens))
    with pytest.raises(InputError, match="token embeddings have shape"):
        clip.text_from_embeddings(embedding(tokens["input_ids"])[:2], tokens)


def test_gradients_reach_token_embeddings_up_to_a_texts_end(clip):
    if clip.name.startswith("owl"):
        pytest.skip("it takes the largest token for the end, which is right in CLIP's vocabulary")
    tokens = clip.tokens(TEXTS)
    learned = clip.model.text_model.embeddings.token_embedding(tokens["input_ids"]).detach()
    learned.requires_grad_(True)
    (clip.text_from_embeddings(learned, tokens) * torch.linspace(0, 1, 5)[:, None]).sum().backward()
    reached = learned.grad.abs().sum(-1) > 0
    if "siglip" in clip.name:
        assert reached[1:].all()  # the last position sees all, padding too; row 0 weighs nothing
    else:
        assert torch.equal(reached[1:], tokens["attention_mask"].bool()[1:])  # causal, to the end


def test_a_training_model_is_left_training(clip):
    clip.model.train()
    try:
        Clip(clip.model, clip.processor).tokens(["car"])
        assert clip.model.training
    finally:
        clip.model.eval()


@pytest.mark.parametrize("method", ["embed_texts", "text_features"])
def test_no_text_and_one_text_in_place_of_a_list(clip, method):
    with pytest.raises(InputError, match="nothing to embed: no texts"):
        getattr(clip, method)([])
    with pytest.raises(InputError, match="give a list of texts, not 'a car'"):
        getattr(clip, method)("a car")


def test_nothing_and_too_much(clip):
    with pytest.raises(InputError, match="no pictures"):
        clip.embed_images([])
    long = clip.embed_texts(["car " * 500])
    assert torch.isfinite(long).all()
    with pytest.raises(InputError, match="need one size"):
        clip.normalise([*pictures(1), *pictures(1, (8, 8))])


def test_a_saved_folder_loads(tmp_path):
    for family in ("clip", "siglip"):
        clip = dual(family)
        clip.model.save_pretrained(tmp_path / family)
        clip.processor.save_pretrained(tmp_path / family)
        loaded = load_clip(tmp_path / family)
        assert not loaded.model.training
        torch.testing.assert_close(loaded.embed_texts(TEXTS), clip.embed_texts(TEXTS))
        torch.testing.assert_close(loaded.embed_images(pictures()), clip.embed_images(pictures()))


# --- templates ----------------------------------------------------------------------------------


def test_the_published_templates():
    assert len(IMAGENET) == len(set(IMAGENET)) == 80
    assert set(BEST_SEVEN) < set(IMAGENET)
    assert all(template.count("{}") == 1 for template in IMAGENET)
    for known in ("a photo of the hard to see {}.", "the {} in a video game.", "a toy {}."):
        assert known in IMAGENET


def test_classes_are_means_over_templates(clip):
    names = ["cat", "small bird"]
    found = embed_classes(clip, names, BEST_SEVEN)
    for row, name in zip(found, names, strict=True):
        mean = sum(clip.embed_texts([each.format(name)])[0] for each in BEST_SEVEN) / 7
        torch.testing.assert_close(row, mean / mean.norm())
    synonyms = embed_synonyms(clip, [["cat"], ["bird", "small bird"]], BEST_SEVEN)
    torch.testing.assert_close(synonyms[0], found[0])
    both = embed_classes(clip, ["bird", "small bird"], BEST_SEVEN).mean(0)
    torch.testing.assert_close(synonyms[1], both / both.norm())


@pytest.mark.parametrize(
    ("names", "templates", "said"),
    [
        (["cat"], ["a photo"], r"template 'a photo' needs exactly one"),
        (["cat"], ["{} and {}"], "needs exactly one"),
        (["cat"], [], "there are no templates"),
        (["cat", " "], ["{}"], "class 1 has an empty name"),
    ],
)
def test_templates_that_are_none(names, templates, said):
    with pytest.raises(InputError, match=said):
        fill_templates(names, templates)


def test_reordering_is_refused_while_rows_have_prompts(clip):
    width = clip.model.config.text_config.hidden_size
    with prompts_on(clip.model, Prompts(text=[torch.zeros(2, 1, width)])):
        with pytest.raises(InputError, match="reordered here by length"):
            clip.embed_texts(["a", "b"])
        with pytest.raises(InputError, match="reordered here by length"):
            clip.texts(**clip.tokens(["a", "b"]))
