"""Arguments of the public functions: one text for a list, no picture, no size, a label too many."""

import copy

import numpy as np
import pytest
import torch

from geodapt.compress import compress
from geodapt.errors import InputError
from geodapt.hyperclip import OpenSegmenter, SegmenterSettings
from geodapt.lathadapter import LatHAdapter
from geodapt.metrics import SegmentationMetrics
from geodapt.metrics.classification import classification_metrics
from geodapt.prompts import ClassVectors, PlainClip, PromptLearner
from geodapt.vision import embed_classes
from geodapt.vision.templates import embed_synonyms
from tests.tiny_models import tiny_llama
from tests.vision.duals import dual, pictures
from tests.xcross.conftest import Shelf


@pytest.fixture(scope="module", params=["clip", "siglip"])
def clip(request):
    return dual(request.param)


TEXTS = {
    "Clip.embed_texts": lambda clip, texts: clip.embed_texts(texts),
    "Clip.text_features": lambda clip, texts: clip.text_features(texts),
    "embed_classes": lambda clip, texts: embed_classes(clip, texts),
    "templates": lambda clip, texts: embed_classes(clip, ["cat"], texts),
    "synonyms": lambda clip, texts: embed_synonyms(clip, [texts]),
    "predict": lambda clip, texts: learner(clip).predict(pictures(2), texts),
    "logits": lambda clip, texts: learner(clip).logits(pictures(2), texts),
    "export": lambda clip, texts: learner(clip).export(texts),
    "words": lambda clip, texts: segmenter(clip).segment(pictures(1)[0], texts),
}


def learner(clip):
    return PromptLearner(clip, PlainClip())


def segmenter(clip):
    return OpenSegmenter(clip, SegmenterSettings(head="cosine"))


@pytest.mark.parametrize("call", TEXTS)
@pytest.mark.parametrize("texts", ["a {}", None, 5, [1], ["a {}", None]])
def test_what_is_no_list_of_texts_is_refused(clip, call, texts):
    with pytest.raises(InputError, match=r"give a list|expected a text"):
        TEXTS[call](clip, texts)


def test_an_x_cross_reads_lists_of_texts_alone(tmp_path):
    shelf = Shelf(tmp_path)
    shelf.save_base()
    shelf.save_adapters()
    ranks = shelf.model()
    for history, candidates in (("a", ["b"]), (["a"], "b"), (None, ["b"]), ([1], ["b"])):
        with pytest.raises(InputError, match=r"give a list|expected a text"):
            ranks.rank(history, candidates)
    ranks.encoder.close()
    model = shelf.model(task="classification", labels=["good", "bad"])
    for call in (model.classify, model.label_probabilities):
        for texts in ("good", None, [2]):
            with pytest.raises(InputError, match=r"give a list|expected a text"):
                call(texts)
    assert model.label_probabilities([]).shape == (0, 2)
    assert model.classify([]) == []
    likely = model.label_probabilities(["good", "bad"])
    assert model.classify(["good", "bad"]) == [["good", "bad"][k] for k in likely.argmax(-1)]


LOOKS = {
    "Clip.embed_images": lambda clip, images: clip.embed_images(images),
    "normalise": lambda clip, images: clip.normalise(images),
    "predict": lambda clip, images: learner(clip).predict(images, ["a"]),
    "embed": lambda clip, images: learner(clip).embed(images),
}


@pytest.mark.parametrize("call", LOOKS)
def test_what_is_no_list_of_pictures_is_refused(clip, call):
    array = np.zeros((8, 8, 3), np.uint8)
    for images, said in (
        (pictures(1)[0], "give a list of pictures, not a Image"),
        (None, "give a list of pictures"),
        ([], "no pictures"),
        ([array], "a picture is a ndarray; give Pillow's images"),
        (["x.png"], "a picture is a str; give Pillow's images"),
    ):
        with pytest.raises(InputError, match=said):
            LOOKS[call](clip, images)


def test_a_segmenter_takes_an_opened_picture_and_a_share(clip):
    model = segmenter(clip)
    for image in ("x.png", np.zeros((9, 9, 3), np.uint8)):
        with pytest.raises(InputError, match="give Pillow's images"):
            model.segment(image, ["a"])
    with pytest.raises(InputError, match="threshold is a str"):
        model.segment(pictures(1)[0], ["a"], "a")
    assert model.segment_lists(pictures(1)[0], []) == []


def test_class_vectors_have_a_name_each_and_their_models_width(clip):
    with pytest.raises(InputError, match="2 classes come with vectors of shape"):
        ClassVectors(("a", "b"), torch.zeros(3, 4))
    with pytest.raises(InputError, match="they are another model's"):
        learner(clip).logits(pictures(2), ClassVectors(("a",), torch.ones(1, 7)))
    with pytest.raises(InputError, match="the label 7, but there are 2 names"):
        learner(clip).loss(pictures(2), [0, 7], ["a", "b"])


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("svd", {"bits_per_weight": float("nan")}),
        ("svd", {"bits_per_weight": "4"}),
        ("svd", {"megabytes": float("nan")}),
        ("int", {"megabytes": 0}),
        ("int", {"loss": float("nan")}),
        ("int", {"loss": 0.0}),
        ("svd", {"loss": 2.0}),
        ("svd", {"rank": True}),
        ("svd", {"rank": 8.5}),
        ("int4", {"group": "16"}),
    ],
    ids=str,
)
def test_what_is_no_size_compresses_nothing(method, target):
    model = tiny_llama()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match="expected a"):
        compress(model, method, **target)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_types_and_batches_that_do_not_fit_are_refused():
    for method, target in (("int4", {"group": 32}), ("lowrank_plus_int4", {"bits_per_weight": 6})):
        with pytest.raises(InputError, match=r"has float64 weights, .* give model.float\(\)"):
            compress(tiny_llama().double(), method, **target)
    for batches in (["a b"], [5]):
        with pytest.raises(InputError, match="expected a model's inputs by name"):
            compress(tiny_llama(), "svd", batches, rank=4)
    ids = torch.arange(96).view(4, 24)
    lists = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}] * 2
    model = tiny_llama()
    found = [
        compress(copy.deepcopy(model), "svd", batches, rank=4).layers
        for batches in (lists, iter(lists), (batch for batch in lists))
    ]
    assert found[0] == found[1] == found[2]


def test_dense_features_know_three_residuals(clip):
    pixels = clip.normalise(pictures(1), (32, 32))
    for residual in ("foo", 5):
        with pytest.raises(InputError, match=r"no residual .* one of class, patch, none|for CLIP"):
            clip.dense_features(pixels, residual)
    with pytest.raises(InputError, match="n from 1"):
        clip.dense_features(pixels[:0])


def test_what_is_no_model_is_not_compressed():
    with pytest.raises(InputError, match=r"takes a model, got 'minilm'; load_base"):
        compress("minilm", "svd", rank=4)


def test_numbers_that_are_no_class_and_no_width_are_refused():
    with pytest.raises(InputError, match="class 9 is none of the 1"):
        SegmentationMetrics(["a"]).means([9])
    for labels in ([0, 5], [0, -1], [0]):
        with pytest.raises(InputError, match="2 rows of 3 logits come with"):
            classification_metrics(torch.zeros(2, 3), torch.tensor(labels))
    for width in ("8", 8.0, 0):
        with pytest.raises(InputError, match="expected a whole number of 1 or more"):
            LatHAdapter(width)
