"""The segmenter: pictures of any size, words in any number, saved and loaded."""

import pytest
import torch
from torch.nn.functional import interpolate

from geodapt.errors import InputError, InputWarning
from geodapt.hyperclip import CostSettings, OpenSegmenter, ScalingSettings, SegmenterSettings, scale
from geodapt.hyperclip.text_adapter import new_text_adapter
from tests.vision.duals import dual, pictures

WORDS = ["cat", "dog", "bird", "car"]
SMALL = CostSettings(
    width=8,
    heads=2,
    window=4,
    classes=6,
    decoder=(8, 6),
    decoder_guidance=(6, 5),
    decoder_guidance_projected=(3, 2),
)


def segmenter(family="clip", **settings) -> OpenSegmenter:
    clip = dual(family)
    torch.manual_seed(0)
    given = {"templates": ["a photo of a {}"], "cost": SMALL, **settings}
    return OpenSegmenter(clip, SegmenterSettings(**given)).eval()


@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2"])
@pytest.mark.parametrize("head", ["cosine", "cost"])
def test_a_picture_of_any_size_gets_a_word_per_pixel(family, head):
    made = segmenter(family, head=head, window=32, stride=24)
    for size in ((40, 28), (32, 32), (9, 70)):
        image = pictures(1, size)[0]
        labels = made.segment(image, WORDS)
        assert labels.shape == (size[1], size[0])
        assert set(labels.unique().tolist()) <= {0, 1, 2, 3}
        probabilities = made.probabilities(image, WORDS)
        assert probabilities.shape == (4, size[1], size[0])
        # Two logits may round to one probability, so that the largest has two places.
        own = probabilities.gather(0, labels[None])[0]
        assert torch.equal(own, probabilities.amax(0))


def test_one_window_is_the_heads_logits_at_the_pictures_size():
    made = segmenter()
    image = pictures(1, (32, 32))[0]
    texts = made.word_vectors(WORDS)
    with torch.no_grad():
        logits = made(made.clip.normalise([image]), texts)
    expected = interpolate(logits, size=(32, 32), mode="bilinear")[0].sigmoid()
    torch.testing.assert_close(made.probabilities(image, WORDS), expected)


def test_the_whole_picture_counts_half():
    image = pictures(1, (64, 32))[0]
    windows = segmenter(stride=16)
    whole = segmenter(stride=16, whole=True)
    texts = windows.word_vectors(WORDS)
    with torch.no_grad():
        logits = windows(windows.clip.normalise([image], (32, 32)), texts)
    one = interpolate(logits, size=(32, 64), mode="bilinear")[0]
    expected = ((windows.probabilities(image, WORDS).logit() + one) / 2).sigmoid()
    torch.testing.assert_close(whole.probabilities(image, WORDS), expected, rtol=1e-4, atol=1e-6)


def test_words_in_pieces_are_words_at_once(monkeypatch):
    image = pictures(1)[0]
    for head in ("cosine", "cost"):
        made = segmenter(head=head)
        expected = made.probabilities(image, WORDS), made.segment(image, WORDS)
        with monkeypatch.context() as patch:
            patch.setattr("geodapt.hyperclip.model.CLASSES_AT_ONCE", 3)
            torch.testing.assert_close(made.probabilities(image, WORDS), expected[0])
            assert torch.equal(made.segment(image, WORDS), expected[1])


@pytest.mark.parametrize("head", ["cosine", "cost"])
def test_several_lists_are_each_list_by_itself(head, monkeypatch):
    monkeypatch.setattr("geodapt.hyperclip.model.CLASSES_AT_ONCE", 2)
    made, image = segmenter(head=head, stride=24), pictures(1, (40, 36))[0]
    lists = [WORDS[:3], WORDS[1:2], WORDS]
    found = made.segment_lists(image, [made.word_vectors(words) for words in lists])
    for words, labels in zip(lists, found, strict=True):
        assert torch.equal(labels, made.segment(image, words))


def test_more_than_a_thousand_words():
    made, image = segmenter(), pictures(1)[0]
    words = [f"thing {number}" for number in range(1200)]
    labels = made.segment(image, words)
    probabilities = made.probabilities(image, words)
    assert torch.equal(probabilities.argmax(0), labels)


def test_threshold_leaves_pixels_without_a_word():
    made, image = segmenter(), pictures(1)[0]
    best = made.probabilities(image, WORDS).amax(0)
    level = best.median().item()
    labels = made.segment(image, WORDS, threshold=level)
    assert torch.equal(labels == -1, best < level)
    assert torch.equal(labels[labels >= 0], made.segment(image, WORDS)[labels >= 0])


def test_synonyms_are_averaged():
    made = segmenter()
    one, other, both = made.word_vectors(["cat", "dog", ["cat", "dog"]])
    torch.testing.assert_close(both, torch.nn.functional.normalize(one + other, dim=0))


@pytest.mark.parametrize("head", ["cosine", "cost"])
def test_saved_and_loaded_says_the_same(head, tmp_path):
    made = segmenter(head=head, stride=20)
    with torch.no_grad():
        scaling = scale(made.clip.model, ScalingSettings(block=4))
        for parameter in scaling.parameters():
            parameter.normal_(std=0.1)
    scaling.fold()
    image = pictures(1)[0]
    made.save_pretrained(tmp_path / "model")
    loaded = OpenSegmenter.from_pretrained(tmp_path / "model")
    assert torch.equal(loaded.probabilities(image, WORDS), made.probabilities(image, WORDS))
    assert loaded.settings == made.settings
    (tmp_path / "model" / "config.json").write_text('{"head": "linear"}')
    with pytest.raises(InputError, match=r"config.json: head"):
        OpenSegmenter.from_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match=r"holds no segmenter"):
        OpenSegmenter.from_pretrained(tmp_path)
    for broken in ("[]", "{"):
        (tmp_path / "model" / "config.json").write_text(broken)
        with pytest.raises(InputError, match=r"config\.json"):
            OpenSegmenter.from_pretrained(tmp_path / "model")


def test_an_adapter_is_kept_or_missed(tmp_path):
    made = segmenter()
    made.text_adapter = new_text_adapter(len(made.word_vectors(["word"])[0]), {"attributes": 2})
    made.save_pretrained(tmp_path)
    loaded = OpenSegmenter.from_pretrained(tmp_path)
    assert torch.equal(loaded.word_vectors(WORDS), made.word_vectors(WORDS))
    (tmp_path / "adapter.json").unlink()
    with pytest.raises(InputError, match=r"has no adapter\.json"):
        OpenSegmenter.from_pretrained(tmp_path)
    (tmp_path / "extra.json").write_text("3")
    with pytest.raises(InputError, match=r"extra\.json lists no files"):
        OpenSegmenter.from_pretrained(tmp_path)
    segmenter().save_pretrained(tmp_path)  # over the other one
    assert OpenSegmenter.from_pretrained(tmp_path).text_adapter is None


def test_segmenting_leaves_a_training_head_in_training():
    made = segmenter(head="cost").train()
    made.segment(pictures(1)[0], WORDS)
    assert made.training
    assert made.head.training


def test_what_cannot_be_asked_is_refused():
    made, image = segmenter(), pictures(1)[0]
    for words, expected in (
        ([], "no words to look for"),
        ("cat", "give a list of words"),
        (["cat", " "], "empty name"),
        ([[]], "has no name"),
    ):
        with pytest.raises(InputError, match=expected):
            made.segment(image, words)
    with pytest.warns(InputWarning, match="tokens; the model reads the first 40"):
        made.segment(image, ["bird " * 60])
    with pytest.raises(InputError, match="window of 30 pixels does not divide into patches of 8"):
        segmenter(window=30)
    with pytest.raises(InputError, match="needs exactly one"):
        segmenter(templates=["a photo"])
