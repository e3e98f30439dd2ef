"""OWL-ViT and OWLv2 as detectors by words: towers copied, loss by hand, boxes in pixels."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image

from geodapt.data.glyphs import GlyphSettings, load_glyphs
from geodapt.errors import InputError, InputWarning
from geodapt.hyperclip import OpenDetector, ScalingSettings, detection_loss, scale
from geodapt.hyperclip.boxes import draw_boxes
from geodapt.hyperclip.settings import DetectorSettings
from geodapt.tinyclip import TinyClipSettings
from geodapt.tinyclip.fitting import untrained_clip
from geodapt.vision import Clip
from tests.hyperclip import towers
from tests.tinyclip.small import SMALL

pytestmark = pytest.mark.usefixtures("own_cache")
EQUAL = {**SMALL, "model": {**SMALL["model"], "embedding": 32}}
PLAIN = DetectorSettings(templates=["{}"])


@pytest.fixture(scope="module")
def clip(own_cache) -> Clip:
    glyphs = load_glyphs(GlyphSettings(**SMALL["data"]))
    torch.manual_seed(0)
    model, processor = untrained_clip(TinyClipSettings(**EQUAL), glyphs)
    return Clip(model.eval(), processor)


@pytest.fixture(scope="module")
def detector(clip) -> OpenDetector:
    torch.manual_seed(0)
    return OpenDetector.from_clip(clip, 32, PLAIN)


def photo(width=40, height=30):
    values = np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_the_towers_are_the_clips(clip, detector):
    words = ["Greek small letter", "alpha", "a much longer text of several words"]
    assert torch.allclose(detector.clip.embed_texts(words), clip.embed_texts(words), atol=1e-6)
    same = OpenDetector.from_clip(clip, 16, PLAIN)  # the CLIP's own size: no position changes
    images = [photo(16, 16)]
    assert torch.allclose(same.clip.embed_images(images), clip.embed_images(images), atol=1e-6)
    assert detector.model.config.vision_config.image_size == 32
    # Four times as many patches, whose positions lie between the CLIP's.
    own = clip.model.vision_model.embeddings.position_embedding.weight[1:]
    larger = detector.clip.model.vision_model.embeddings.position_embedding.weight[1:]
    assert len(larger) == 4 * len(own)
    assert torch.allclose(larger.mean(0), own.mean(0), atol=0.02)


def test_words_are_read_where_transformers_reads_them_in_openais_vocabulary():
    """There the end is the largest number, so that both rules are one."""
    model = towers.model("owlvit", torch.float32)
    tokens = {"input_ids": towers.IDS, "attention_mask": (towers.IDS != 1).long()}
    before = model.owlvit.get_text_features(**tokens).pooler_output
    from geodapt.hyperclip.owl import read_texts_at

    read_texts_at(model.owlvit, 49)
    assert torch.equal(model.owlvit.get_text_features(**tokens).pooler_output, before)
    read_texts_at(model.owlvit, 5)  # an end that some texts lack: these keep their vector
    after = model.owlvit.get_text_features(**tokens).pooler_output
    assert not torch.allclose(after[0], before[0])
    assert torch.equal(after[1], before[1])


@pytest.mark.parametrize("family", ["owlvit", "owlv2"])
def test_boxes_and_logits_are_transformers_own(family, clip):
    model = towers.model(family, torch.float32)
    detector = OpenDetector(model, clip.processor, PLAIN)
    torch.manual_seed(2)
    pixels = torch.randn(1, 3, 32, 32)
    ids = towers.IDS
    found = model(input_ids=ids, attention_mask=(ids != 1).long(), pixel_values=pixels)
    with torch.no_grad():
        logits, boxes = detector(pixels, found.text_embeds[0])
    assert torch.allclose(logits, found.logits, atol=1e-5)
    assert torch.allclose(boxes, found.pred_boxes, atol=1e-6)


def test_detect_gives_pixels_of_the_picture(detector):
    image = photo()
    words = ["alpha", ["omega", "last letter"], "page"]
    found = detector.detect(image, words, threshold=0, most=12)
    assert found.boxes.shape == (12, 4)
    assert (found.scores.diff() <= 0).all()
    assert set(found.labels.tolist()) <= {0, 1, 2}
    x, y, width, height = found.boxes.T
    assert (x >= 0).all()
    assert (y >= 0).all()
    assert (x + width <= 40 + 1e-4).all()
    assert (y + height <= 30 + 1e-4).all()
    with torch.no_grad():
        logits, boxes = detector(detector.pixels([image]), detector.word_vectors(words))
    best = logits[0].sigmoid().flatten().argmax()
    assert found.scores[0] == pytest.approx(float(logits[0].sigmoid().flatten()[best]))
    middle = boxes[0, best // 3, :2] * torch.tensor([40, 30])
    inside = found.boxes[0, :2] + found.boxes[0, 2:] / 2
    assert (middle - inside).abs().max() < 20
    assert len(detector.detect(image, words, threshold=1).boxes) == 0
    drawn = draw_boxes(image, found, ["alpha", "omega", "page"])
    assert drawn.size == image.size
    assert np.any(np.asarray(drawn) != np.asarray(image))


def test_boxes_that_cannot_be_seen_are_none(detector, monkeypatch):
    """Less than a pixel wide or high, also once they are cut to the picture."""
    places = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.02, 0.5], [1.2, 0.5, 0.3, 0.5]])
    places = torch.cat([places, torch.tensor([[0.9, 0.5, 0.4, 0.04]])])[None]
    logits = torch.tensor([[1.0], [4.0], [3.0], [2.0]])[None]
    monkeypatch.setattr(detector, "forward", lambda *_: (logits, places))
    found = detector.detect(photo(), ["alpha"], threshold=0)
    assert found.boxes.tolist() == [
        pytest.approx([28, 14.4, 12, 1.2], abs=1e-4),
        pytest.approx([10, 7.5, 20, 15], abs=1e-4),
    ]
    assert found.scores.tolist() == pytest.approx(logits[0, [3, 0], 0].sigmoid().tolist())


def test_owlv2_takes_pictures_filled_up_to_a_square(clip):
    detector = OpenDetector(towers.model("owlv2", torch.float32), clip.processor, PLAIN)
    image = photo(40, 20)
    assert detector.extent(image) == (40, 40)
    pixels = detector.pixels([image])[0]
    assert pixels.shape == (3, 32, 32)
    assert pixels[:, 18:].std() < 1e-3  # the filling
    assert pixels[:, :14].std() > 0.1
    stretched = OpenDetector(towers.model("owlvit", torch.float32), clip.processor, PLAIN)
    assert stretched.extent(image) == (40, 20)
    assert stretched.pixels([image])[0, :, 18:].std() > 0.1


def reference(logits, boxes, targets):
    """Focal, L1 and generalized IoU in float64, over all ways to assign the boxes."""
    total = max(1, sum(len(target["boxes"]) for target in targets))
    sums = np.zeros(3)
    for scores, places, target in zip(logits.double(), boxes.double(), targets, strict=True):
        true, labels = target["boxes"].double(), target["class_labels"]
        p = scores.sigmoid()

        def cost(patch, k, p=p, true=true, labels=labels, places=places):
            q = p[patch, labels[k]].item()
            positive = 0.25 * (1 - q) ** 2 * -math.log(q + 1e-8)
            negative = 0.75 * q**2 * -math.log(1 - q + 1e-8)
            away = (places[patch] - true[k]).abs().sum().item()
            return 2 * (positive - negative) + 5 * away - 2 * giou(places[patch], true[k])

        ways = itertools.permutations(range(len(places)), len(true))
        best = min(ways, key=lambda way: sum(cost(patch, k) for k, patch in enumerate(way)))
        wanted = torch.zeros_like(p)
        for k, patch in enumerate(best):
            wanted[patch, labels[k]] = 1
            sums[1] += (places[patch] - true[k]).abs().sum().item()
            sums[2] += 1 - giou(places[patch], true[k])
        for q, t in zip(p.flatten().tolist(), wanted.flatten().tolist(), strict=True):
            right = q if t else 1 - q
            sums[0] += (0.25 if t else 0.75) * (1 - right) ** 2 * -math.log(right)
    return (2 * sums[0] + 5 * sums[1] + 2 * sums[2]) / total


def giou(a, b):
    a, b = a.tolist(), b.tolist()
    low = [[box[0] - box[2] / 2, box[1] - box[3] / 2] for box in (a, b)]
    high = [[box[0] + box[2] / 2, box[1] + box[3] / 2] for box in (a, b)]
    both = hull = 1.0
    for axis in range(2):
        both *= max(0.0, min(h[axis] for h in high) - max(one[axis] for one in low))
        hull *= max(h[axis] for h in high) - min(one[axis] for one in low)
    union = a[2] * a[3] + b[2] * b[3] - both
    return both / union - (hull - union) / hull


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_what_one_computes_by_hand(seed):
    torch.manual_seed(seed)
    logits = torch.randn(2, 4, 3)
    boxes = torch.rand(2, 4, 4) * 0.5 + 0.2
    targets = [
        {"class_labels": torch.tensor([0, 2]), "boxes": torch.rand(2, 4) * 0.5 + 0.2},
        {"class_labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)},
    ]
    assert detection_loss(logits, boxes, targets).item() == pytest.approx(
        reference(logits, boxes, targets), rel=1e-5
    )
    none = [targets[1], targets[1]]
    logits.requires_grad_(True)
    loss = detection_loss(logits, boxes, none)
    assert loss.item() == pytest.approx(reference(logits.detach(), boxes, none), rel=1e-5)
    loss.backward()
    assert logits.grad.abs().sum() > 0


def test_scaled_folded_saved_and_loaded(clip, tmp_path):
    torch.manual_seed(0)
    detector = OpenDetector.from_clip(clip, 32, PLAIN)
    image, words = photo(), ["alpha", "beta"]
    before = detector.detect(image, words, 0)
    scaling = scale(detector.clip.model, ScalingSettings(block=8))
    assert torch.equal(detector.detect(image, words, 0).scores, before.scores)
    with torch.no_grad():
        for parameter in scaling.parameters():
            parameter.normal_(std=0.2)
    scaled = detector.detect(image, words, 0)
    assert not torch.allclose(scaled.scores[:10], before.scores[:10])
    scaling.fold()
    folded = detector.detect(image, words, 0)
    assert torch.allclose(folded.scores, scaled.scores, atol=1e-5)
    detector.save_pretrained(tmp_path / "detector")
    again = OpenDetector.from_pretrained(tmp_path / "detector").detect(image, words, 0)
    assert torch.equal(again.scores, folded.scores)
    assert torch.equal(again.boxes, folded.boxes)
    plain = OpenDetector.load(str(tmp_path / "detector" / "owl"), PLAIN)
    assert torch.equal(plain.detect(image, words, 0).scores, folded.scores)


def test_many_words_and_long_ones(detector):
    found = detector.detect(photo(), [f"word {number}" for number in range(1200)], 0)
    assert len(found.boxes) == 100
    with pytest.warns(InputWarning, match="tokens; the model reads the first"):
        detector.detect(photo(), ["alpha " * 80])


def test_what_cannot_be_a_detector(clip, detector, tmp_path):
    with pytest.raises(InputError, match="there are no words"):
        detector.detect(photo(), [])
    with pytest.raises(InputError, match="pictures of 30 pixels do not divide into patches of 8"):
        OpenDetector.from_clip(clip, 30)
    with pytest.raises(InputError, match="a SiglipModel has other towers"):
        OpenDetector.from_clip(Clip(towers.model("siglip"), clip.processor), 32)
    with pytest.raises(InputError, match="texts are 32 wide and its vectors 24"):
        OpenDetector.from_clip(Clip(towers.model("clip"), clip.processor), 32)
    with pytest.raises(InputError, match="a CLIPModel detects nothing by words"):
        OpenDetector(clip.model, clip.processor)
    with pytest.raises(InputError, match="holds no detector"):
        OpenDetector.from_pretrained(tmp_path)
