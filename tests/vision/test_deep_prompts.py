"""Prompts in both towers beside a forward written by hand, and what hooks must not disturb."""

import copy
import threading

import pytest
import torch
from torch.nn.functional import normalize

from geodapt.errors import InputError
from geodapt.vision import Clip, Prompts, prompts_on
from tests.vision.duals import dual, pictures, squares

TEXTS = ["X X a photo of a cat", "X X dog"]
COUNT = 2


@pytest.fixture(params=["clip", "clipseg", "siglip"])
def clip(request) -> Clip:
    return dual(request.param)


def values(clip, tower, layers=3, rows=None, seed=0, scale=1.0):
    """Prompts of random numbers for the first layers of a tower."""
    width = getattr(clip.model.config, f"{tower}_config").hidden_size
    generator = torch.Generator().manual_seed(seed)
    shape = (COUNT, width) if rows is None else (rows, COUNT, width)
    return [scale * torch.randn(shape, generator=generator) for _ in range(layers)]


def text_by_hand(clip, tokens, prompts, start):
    """The text tower layer by layer, with prompts put in place of tokens after the start."""
    tower = clip.model.text_model
    ids = tokens["input_ids"]
    embedded = tower.embeddings.token_embedding(ids)
    length = ids.shape[1]
    mask = torch.zeros(len(ids), 1, length, length)
    if start:  # CLIP: causal
        mask = mask + torch.full((length, length), float("-inf")).triu(1)
    if "attention_mask" in tokens:
        hidden = tokens["attention_mask"][:, None, None] == 0
        mask = mask.masked_fill(hidden, float("-inf"))
    states = embedded
    for number, layer in enumerate(tower.encoder.layers):
        state = states
        if number < len(prompts):
            given = prompts[number].expand(len(ids), -1, -1)
            state = torch.cat([state[:, :start], given, state[:, start + COUNT :]], dim=1)
        if number == 0:
            state = state + tower.embeddings.position_embedding.weight[:length]
        states = layer(state, attention_mask=mask)
    states = tower.final_layer_norm(states)
    if not start:
        return normalize(tower.head(states[:, -1]), dim=-1)
    ends = (ids == clip.model.config.text_config.eos_token_id).int().argmax(-1)
    return normalize(clip.model.text_projection(states[torch.arange(len(ids)), ends]), dim=-1)


def image_by_hand(clip, pixels, prompts):
    """The image tower layer by layer, with prompts after the patches."""
    tower = clip.model.vision_model
    embedded = tower.embeddings(pixels)
    patches = embedded.shape[1]
    states = torch.cat([embedded, prompts[0].expand(len(pixels), -1, -1)], dim=1)
    if hasattr(tower, "pre_layrnorm"):
        states = tower.pre_layrnorm(states)
    for number, layer in enumerate(tower.encoder.layers):
        if 0 < number < len(prompts):
            states = torch.cat(
                [states[:, :patches], prompts[number].expand(len(pixels), -1, -1)], dim=1
            )
        states = layer(states, attention_mask=None)
    if hasattr(clip.model, "visual_projection"):
        pooled = clip.model.visual_projection(tower.post_layernorm(states[:, 0]))
    else:
        pooled = tower.head(tower.post_layernorm(states[:, :patches]))
    return normalize(pooled, dim=-1)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("rows", [None, 2], ids=["shared", "by-row"])
@torch.no_grad()
def test_towers_with_prompts_equal_a_forward_by_hand(clip, depth, rows):
    text = values(clip, "text", depth, rows)
    image = values(clip, "vision", depth, rows, seed=1)
    tokens, pixels = clip.tokens(TEXTS), {"pixel_values": squares()}
    before = clip.text_vectors(tokens), clip.image_vectors(pixels)
    with prompts_on(clip.model, Prompts(text, image)):
        texts, images = clip.text_vectors(tokens), clip.image_vectors(pixels)
    start = 0 if clip.name == "siglip" else 1
    torch.testing.assert_close(texts, text_by_hand(clip, tokens, text, start))
    torch.testing.assert_close(images, image_by_hand(clip, pixels["pixel_values"], image))
    assert (texts - before[0]).abs().max() > 1e-3
    assert (images - before[1]).abs().max() > 1e-3
    # Off is the identity, bit for bit.
    assert torch.equal(clip.text_vectors(tokens), before[0])
    assert torch.equal(clip.image_vectors(pixels), before[1])


@torch.no_grad()
def test_tokens_own_embeddings_as_prompts_change_nothing(clip):
    tokens = clip.tokens(TEXTS)
    start = 0 if clip.name == "siglip" else 1
    embedding = clip.model.text_model.embeddings.token_embedding
    own = embedding(tokens["input_ids"][:, start : start + COUNT])
    wanted = clip.text_vectors(tokens)
    with prompts_on(clip.model, Prompts(text=[own])):
        assert torch.equal(clip.text_vectors(tokens), wanted)


def test_gradients_reach_every_prompt_also_with_checkpoints(clip):
    tokens, pixels = clip.tokens(TEXTS), {"pixel_values": squares()}
    clip.model.train()

    def gradients():
        text = [value.requires_grad_(True) for value in values(clip, "text")]
        image = [value.requires_grad_(True) for value in values(clip, "vision", seed=1)]
        with prompts_on(clip.model, Prompts(text, image)):
            loss = clip.logits(clip.image_vectors(pixels), clip.text_vectors(tokens))[0, 0]
        loss.backward()  # outside: what is recomputed must not need the prompts to be on
        return [value.grad for value in (*text, *image)]

    wanted = gradients()
    assert all(gradient.abs().sum() > 0 for gradient in wanted)
    clip.model.gradient_checkpointing_enable()
    for found, gradient in zip(gradients(), wanted, strict=True):
        torch.testing.assert_close(found, gradient)


@torch.no_grad()
def test_dense_features_with_prompts_leave_the_prompts_out(clip):
    image = values(clip, "vision")
    plain = clip.dense_features(squares())
    with prompts_on(clip.model, Prompts(image=image)):
        prompted = clip.dense_features(squares(), layers=(1,))
    assert prompted.features.shape == plain.features.shape
    assert prompted.hidden[0].shape[2:] == (4, 4)
    assert (prompted.features - plain.features).abs().max() > 1e-3


@torch.no_grad()
def test_two_learners_in_two_threads_do_not_disturb_each_other(clip):
    tokens = clip.tokens(TEXTS)
    plain = clip.text_vectors(tokens)
    learners = [values(clip, "text", seed=seed) for seed in range(4)]
    wanted = []
    for learner in learners:
        with prompts_on(clip.model, Prompts(text=learner)):
            wanted.append(clip.text_vectors(tokens))
    found: dict[int, list] = {}
    together = threading.Barrier(5)

    def run(number):
        together.wait()
        with torch.no_grad():
            if number == 4:
                found[4] = [clip.text_vectors(tokens) for _ in range(10)]
                return
            with prompts_on(clip.model, Prompts(text=learners[number])):
                found[number] = [clip.text_vectors(tokens) for _ in range(10)]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, right in enumerate([*wanted, plain]):
        assert all(torch.equal(vectors, right) for vectors in found[number])


@torch.no_grad()
def test_another_model_and_a_copy_keep_their_own(clip):
    tokens = clip.tokens(TEXTS)
    plain = clip.text_vectors(tokens)
    with prompts_on(clip.model, Prompts(text=values(clip, "text"))):
        prompted = clip.text_vectors(tokens)
        twin = copy.deepcopy(clip.model)
        same = normalize(twin.get_text_features(**tokens).pooler_output, dim=-1)
        assert torch.equal(same, plain)  # the copy has no prompts
        with prompts_on(twin, Prompts(text=values(clip, "text"))):
            both = normalize(twin.get_text_features(**tokens).pooler_output, dim=-1)
            assert torch.equal(both, prompted)
            assert torch.equal(clip.text_vectors(tokens), prompted)
        with prompts_on(clip.model, Prompts()):
            assert torch.equal(clip.text_vectors(tokens), plain)
        assert torch.equal(clip.text_vectors(tokens), prompted)


@pytest.mark.slow
@torch.no_grad()
def test_a_model_that_was_compiled_before_gets_its_prompts(clip):
    tokens, pixels = clip.tokens(TEXTS), {"pixel_values": squares()}
    prompts = Prompts(values(clip, "text"), values(clip, "vision"))

    def both():
        return torch.cat([clip.text_vectors(tokens), clip.image_vectors(pixels)])

    compiled = torch.compile(both, backend="eager")
    plain = both()
    torch.testing.assert_close(compiled(), plain)
    for given in (prompts, Prompts(values(clip, "text", seed=5), values(clip, "vision", seed=6))):
        with prompts_on(clip.model, given):
            torch.testing.assert_close(compiled(), both())
            assert (both() - plain).abs().max() > 1e-3
    torch.testing.assert_close(compiled(), plain)


def test_an_error_inside_turns_prompts_off(clip):
    tokens = clip.tokens(TEXTS)
    plain = clip.text_vectors(tokens)
    with pytest.raises(ZeroDivisionError), prompts_on(clip.model, Prompts(values(clip, "text"))):
        raise ZeroDivisionError
    assert torch.equal(clip.text_vectors(tokens), plain)


@torch.no_grad()
def test_layers_without_prompts_let_the_last_ones_flow_on(clip):
    first, second, _ = values(clip, "text")
    tokens = clip.tokens(TEXTS)
    with prompts_on(clip.model, Prompts(text=[first, None, second])):
        found = clip.text_vectors(tokens)
    with prompts_on(clip.model, Prompts(text=[first])):
        shallow = clip.text_vectors(tokens)
    assert (found - shallow).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ({"text": [torch.zeros(2, 7)]}, r"text prompts of layer 0 have shape \(2, 7\)"),
        ({"text": [torch.zeros(2, 24)] * 4}, "for 4 text layers, but the text tower has 3"),
        ({"text": [torch.zeros(2, 24), torch.zeros(3, 24)]}, "give every layer as many"),
        ({"text": [torch.zeros(40, 24)]}, "leave no room for a text in 40 positions"),
        ({"image": [None, torch.zeros(2, 32)]}, "appended at layer 0"),
    ],
)
def test_prompts_that_do_not_fit(clip, prompts, said):
    with pytest.raises(InputError, match=said), prompts_on(clip.model, Prompts(**prompts)):
        pass


@torch.no_grad()
def test_prompts_that_do_not_fit_the_batch(clip):
    tokens = clip.tokens(TEXTS)
    with (
        prompts_on(clip.model, Prompts(text=values(clip, "text", rows=3))),
        pytest.raises(InputError, match="given for 3 rows, but 2 pass"),
    ):
        clip.text_vectors(tokens)
    if clip.name != "siglip":  # whose texts always have the full length
        many = [torch.zeros(20, 24)]
        with (
            prompts_on(clip.model, Prompts(text=many)),
            pytest.raises(InputError, match="do not fit in texts of"),
        ):
            clip.text_vectors(tokens)


def test_flexible_patches_take_no_image_prompts():
    clip = dual("siglip2")
    with (
        pytest.raises(InputError, match="takes no image prompts"),
        prompts_on(clip.model, Prompts(image=[torch.zeros(2, 32)])),
    ):
        clip.image_vectors(clip.pixels(pictures()))
