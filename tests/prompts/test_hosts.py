"""Each host's loss beside a float64 forward written from its definition; texts and places."""

import pytest
import torch
from torch.nn.functional import batch_norm, normalize

from geodapt.errors import InputError
from geodapt.prompts import CoOp, MaPLe, PlainClip, PromptKD, PromptLearner, PromptSRC
from geodapt.prompts.classes import ClassTexts
from geodapt.prompts.objective import Objective
from geodapt.prompts.promptsrc import epoch_weights
from geodapt.vision import Prompts
from tests.prompts import by_hand
from tests.vision.duals import dual, pictures

NAMES = ["cat", "small bird", "red car"]
LABELS = [0, 2, 1]
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


@pytest.fixture(params=["clip", "siglip"])
def clip(request):
    return dual(request.param)


def stirred(learner):
    """The learner with other values than its start, which is small."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return learner


def ids_of(clip, text):
    return clip.processor.tokenizer(text)["input_ids"]


def parts(clip, template):
    """Of each class the ids before learned tokens, and those after."""
    start = 0 if clip.name == "siglip" else 1
    rows = [ids_of(clip, template.format(name)) for name in NAMES]
    return [(row[:start], row[start:]) for row in rows]


def doubled(values):
    return [value.detach().double() for value in values]


def texts_by_hand(clip, model, first, deeper, template):
    return torch.stack(
        [
            by_hand.text(model, clip.processor.tokenizer, [*head, *first, *rest], deeper)
            for head, rest in parts(clip, template)
        ]
    )


def pixels_of(clip):
    return clip.pixels(pictures(3))["pixel_values"].double()


def check(learner, wanted):
    found = learner.loss(pictures(3), LABELS, NAMES)
    total = sum(found.values())
    torch.testing.assert_close(total.double(), wanted, **CLOSE)
    total.backward()
    for name, parameter in learner.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("place", ["end", "middle", "front"])
@pytest.mark.parametrize("per_class", [False, True])
def test_coop(clip, place, per_class):
    host = CoOp(length=3, place=place, per_class=per_class, template="{} .")
    learner = PromptLearner(clip, host)
    learner.host.remember_classes(tuple(NAMES))
    stirred(learner)
    model = by_hand.double(clip)
    context = learner.host.text.detach().double().expand(3, 3, -1)
    before = {"end": 3, "middle": 1, "front": 0}[place]
    texts = []
    for (head, rest), name, tokens in zip(parts(clip, "{} ."), NAMES, context, strict=True):
        count = len(ids_of(clip, name)) - len(head) - 1  # without the end token
        row = [*head, *tokens[:before], *rest[:count], *tokens[before:], *rest[count:]]
        texts.append(by_hand.text(model, clip.processor.tokenizer, row))
    images = by_hand.image(model, pixels_of(clip))
    wanted = by_hand.cross_entropy(by_hand.logits(model, images, torch.stack(texts)), LABELS)
    check(learner, wanted)


def test_maple(clip):
    learner = stirred(PromptLearner(clip, MaPLe(length=2, depth=3, words="a photo")))
    model = by_hand.double(clip)
    first, *deeper = doubled(learner.host.text)
    texts = texts_by_hand(clip, model, first, deeper, "of a {}.")
    maps = [
        tokens @ each.weight.detach().double().T + each.bias.detach().double()
        for each, tokens in zip(learner.host.maps, [first, *deeper], strict=True)
    ]
    images = by_hand.image(model, pixels_of(clip), maps)
    check(learner, by_hand.cross_entropy(by_hand.logits(model, images, texts), LABELS))


def test_deep_tokens_after_the_name(clip):
    """Each row has them at places of its own, in every layer."""
    learner = stirred(PromptLearner(clip, MaPLe(length=2, depth=3, place="front", template="{} .")))
    model = by_hand.double(clip)
    first, *deeper = doubled(learner.host.text)
    texts = []
    for (head, rest), name in zip(parts(clip, "{} ."), NAMES, strict=True):
        count = len(ids_of(clip, name)) - len(head) - 1  # without the end token
        row = [*head, *rest[:count], *first, *rest[count:]]
        at = len(head) + count
        texts.append(by_hand.text(model, clip.processor.tokenizer, row, deeper, at))
    maps = [
        tokens @ each.weight.detach().double().T + each.bias.detach().double()
        for each, tokens in zip(learner.host.maps, [first, *deeper], strict=True)
    ]
    images = by_hand.image(model, pixels_of(clip), maps)
    wanted = by_hand.cross_entropy(by_hand.logits(model, images, torch.stack(texts)), LABELS)
    check(learner, wanted)


def test_promptsrc(clip):
    templates = ["a photo of a {}.", "a {}."]
    host = PromptSRC(length=2, depth=2, image_depth=3, frozen_templates=templates)
    learner = stirred(PromptLearner(clip, host))
    model = by_hand.double(clip)
    first, *deeper = doubled(learner.host.text)
    texts = texts_by_hand(clip, model, first, deeper, "{}.")
    images = by_hand.image(model, pixels_of(clip), doubled(learner.host.image))
    frozen = normalize(sum(texts_by_hand(clip, model, [], [], each) for each in templates), dim=-1)
    frozen_images = by_hand.image(model, pixels_of(clip))
    prompted = by_hand.logits(model, images, texts)
    wanted = (
        by_hand.cross_entropy(prompted, LABELS)
        + 25 * (normalize(texts, dim=-1) - frozen).abs().mean()
        + 10 * (normalize(images, dim=-1) - normalize(frozen_images, dim=-1)).abs().mean()
        + by_hand.divergence(by_hand.logits(model, frozen_images, frozen), prompted)
    )
    check(learner, wanted)


def test_promptkd(clip):
    teacher = stirred(PromptLearner(dual("clip"), PromptSRC(length=2, depth=3)))
    learner = PromptLearner(clip, PromptKD(length=2, depth=3, temperature=2.0), teacher=teacher)
    stirred(learner).train()
    model, large = by_hand.double(clip), by_hand.double(teacher.clip)
    first, *deeper = doubled(teacher.host.text)
    texts = texts_by_hand(teacher.clip, large, first, deeper, "{}.")
    followed = by_hand.image(large, pixels_of(teacher.clip), doubled(teacher.host.image))
    images = by_hand.image(model, pixels_of(clip), doubled(learner.host.image))
    one, norm, _, two = learner.host.projector
    hidden = images @ one.weight.double().T + one.bias.double()
    normed = batch_norm(hidden, None, None, norm.weight.double(), norm.bias.double(), training=True)
    images = normed.relu() @ two.weight.double().T + two.bias.double()
    student = by_hand.logits(model, images, texts) / 2
    target = by_hand.logits(large, followed, texts) / 2
    found = learner.loss(pictures(3), LABELS, NAMES)
    wanted = 1000 * 4 * by_hand.divergence(target, student)
    torch.testing.assert_close(found["distillation"].double(), wanted, atol=1e-2, rtol=2e-3)
    # Labels are not looked at.
    again = learner.loss(pictures(3), [1, 1, 0], NAMES)
    assert torch.equal(found["distillation"], again["distillation"])


def test_plain_clip_is_the_clip_itself(clip):
    learner = PromptLearner(clip, PlainClip())
    texts = clip.embed_texts([f"a photo of a {name}." for name in NAMES])
    wanted = clip.scale * clip.embed_images(pictures(3)) @ texts.T
    torch.testing.assert_close(learner.logits(pictures(3), NAMES), wanted, **CLOSE)
    assert learner.predict(pictures(3), NAMES) == [NAMES[i] for i in wanted.argmax(-1)]


def test_learned_tokens_start_as_words_and_change_nothing_at_first():
    clip = dual("clip")
    learner = PromptLearner(clip, CoOp(length=2, words="a photo", template="of a {}."))
    plain = PromptLearner(clip, PlainClip(template="a photo of a {}."))
    torch.testing.assert_close(learner.class_vectors(NAMES), plain.class_vectors(NAMES), **CLOSE)


@pytest.mark.parametrize("at_once", [1, 2])
def test_chunks_of_classes_give_the_same_vectors_and_gradients(clip, at_once):
    width = clip.model.config.text_config.hidden_size
    for shape in ((2, width), (3, 2, width)):
        tokens = [torch.randn(shape, requires_grad=True) for _ in range(2)]
        texts = ClassTexts(clip, NAMES, "a {}.", 2)
        whole = texts.features(clip, Prompts(text=tokens))
        wanted = torch.autograd.grad(whole.square().sum(), tokens)
        found = texts.features(clip, Prompts(text=tokens), at_once)
        torch.testing.assert_close(found, whole, **CLOSE)
        gradients = torch.autograd.grad(found.square().sum(), tokens)
        for one, other in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_trimmed_texts_equal_those_of_full_length():
    clip = dual("clip")
    texts = ClassTexts(clip, NAMES, "a {}.", 2)
    assert texts.ids.shape[1] < 20
    tokens = [0.5 * torch.randn(2, clip.model.config.text_config.hidden_size) for _ in range(3)]
    wanted = texts.features(clip, Prompts(text=tokens))
    more = 40 - texts.ids.shape[1]
    padding = clip.processor.tokenizer.pad_token_id
    texts.ids = torch.nn.functional.pad(texts.ids, (0, more), value=padding)
    texts.mask = torch.nn.functional.pad(texts.mask, (0, more))
    full = texts.features(clip, Prompts(text=tokens))
    torch.testing.assert_close(
        normalize(full, dim=-1), normalize(wanted, dim=-1), atol=1e-6, rtol=0
    )


def test_the_average_has_the_papers_weights():
    weights = epoch_weights(20, 15, 1)
    assert sum(weights) == pytest.approx(1)
    assert weights.index(max(weights)) == 14
    assert weights[14] / weights[13] == pytest.approx(2.718281828**0.5)
    assert 1 / sum(weight**2 for weight in weights) == pytest.approx(3.5, abs=0.1)
    assert sum(epoch_weights(3, 500, 1)) == pytest.approx(1)  # far away, none is lost


def test_what_cannot_be_is_refused(clip):
    with pytest.raises(InputError, match="depth 4 is over the 3 layers of the text tower"):
        PromptLearner(clip, MaPLe(depth=4))
    with pytest.raises(InputError, match="depth 9 is over the 3 layers of the image tower"):
        PromptLearner(clip, PromptSRC(depth=2, image_depth=9))
    with pytest.raises(InputError, match="PromptKD needs a teacher"):
        PromptLearner(clip, PromptKD(depth=2))
    with pytest.raises(InputError, match="learns from no teacher"):
        PromptLearner(clip, MaPLe(depth=2), teacher=clip)
    learner = PromptLearner(clip, CoOp(length=3))
    with pytest.raises(InputError, match="more than the 40 that"):
        learner.class_vectors(["a photo of a small bird on a red car " * 9])
    with pytest.raises(InputError, match="no classes"):
        learner.class_vectors([])
    with pytest.raises(InputError, match="empty name"):
        learner.class_vectors(["cat", " "])
    with pytest.raises(InputError, match="no pictures"):
        learner.predict([], NAMES)
    own = PromptLearner(clip, CoOp(length=2, per_class=True))
    own.host.remember_classes(tuple(NAMES))
    with pytest.raises(InputError, match="per_class"):
        own.class_vectors(["dog"])


def test_a_model_of_another_kind_is_refused_by_name():
    with pytest.raises(InputError, match="SigLIP of fixed size"):
        PromptLearner(dual("siglip2"), MaPLe(depth=2))


def test_an_objective_holds_nothing_of_the_base():
    learner = PromptLearner(dual("clip"), PromptSRC(length=2, depth=2))
    names = Objective(learner, ("a", "b"), 5).state_dict().keys()
    assert {name.split(".")[0] for name in names} == {"host", "average"}
