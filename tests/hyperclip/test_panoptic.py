"""A Mask2Former with words: scores and segments by hand, training, the recipe, its page, files."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Mask2FormerImageProcessorPil

from geodapt.errors import InputError
from geodapt.hyperclip import MaskSettings, OpenPanoptic, PanopticModelSettings
from geodapt.hyperclip.masks import mask_loss, pool_features
from geodapt.hyperclip.overlay import region_paths
from geodapt.hyperclip.segment_scores import compose_segments, ensemble_scores
from tests.commands import call
from tests.hyperclip.worlds import GREEK, glyph_world, results
from tests.vision.duals import dual, pictures

pytestmark = pytest.mark.usefixtures("own_cache")
TINY = MaskSettings(width=32, queries=5, layers=1, heads=2, backbone=12, depths=(1,) * 4, points=32)
PLAIN = PanopticModelSettings(templates=["{}"], side=64)
WORDS = ["cat", ["dog", "small bird"], "red car"]
RECIPE = {
    **GREEK,
    "recipe": "hyperclip-panoptic",
    "masks": TINY.model_dump(exclude={"checkpoint"}, mode="json"),
    "side": 64,
    "window": 32,
    "methods": ["frozen", "hyperclip-8"],
}


@pytest.fixture(scope="module")
def clip():
    return dual("clip")


@pytest.fixture(scope="module")
def model(clip):
    torch.manual_seed(0)
    return OpenPanoptic.from_clip(clip, TINY, PLAIN).eval()


def test_scores_are_the_published_ensemble():
    torch.manual_seed(0)
    trained, clip = torch.randn(4, 4).double(), torch.randn(4, 3).double()
    share = torch.tensor([0.4, 0.8, 0.4]).double()
    covers = torch.tensor([True, True, True, False])
    scores, void = ensemble_scores(trained, clip, share, covers)
    for row in range(4):
        whole = np.exp(trained[row].numpy())
        own, other = whole[:3] / whole[:3].sum(), np.exp(clip[row].numpy())
        a = share.numpy() * bool(covers[row])
        mixed = own ** (1 - a) * (other / other.sum()) ** a
        left = 1 - whole[3] / whole.sum()
        assert np.allclose(scores[row], left * mixed / mixed.sum())
        assert float(void[row]) == pytest.approx(1 - left)


def test_a_pixel_goes_to_the_mask_that_wins_it():
    """Against the published steps, pixel by pixel."""
    torch.manual_seed(1)
    for _ in range(20):
        scores, void = torch.rand(7, 3) * 0.6, torch.rand(7)
        masks = torch.nn.functional.interpolate(3 * torch.randn(1, 7, 3, 4), (9, 8))[0]
        found = compose_segments(scores, void, masks, {0}, 0.2, 0.7)
        kept = [q for q in range(7) if void[q] <= 0.5 and scores[q].max() > 0.2]
        inside, expected, labels = masks.sigmoid(), np.full((9, 8), -1), []
        win = np.array(
            [
                [
                    max(kept, key=lambda q: (scores[q].max() * inside[q, y, x]).item())
                    if kept
                    else -1
                    for x in range(8)
                ]
                for y in range(9)
            ]
        )
        for q in kept:
            own = (win == q) & (inside[q] >= 0.5).numpy()
            if not own.any() or (win == q).sum() < 0.7 * (inside[q] >= 0.5).sum().item():
                continue
            label = int(scores[q].argmax())
            if not (label == 0 and 0 in labels):
                labels.append(label)
            expected[own] = labels.index(0) if label == 0 else len(labels) - 1
        assert found.labels.tolist() == labels
        assert np.array_equal(found.places, expected)
    assert compose_segments(scores, torch.ones(7), masks).labels.numel() == 0


def test_features_are_the_means_over_a_masks_pixels():
    torch.manual_seed(0)
    features, masks = torch.randn(2, 5, 3, 4), (torch.rand(2, 6, 12, 8) < 0.3).float()
    masks[0, 0] = 0
    pixels = features.repeat_interleave(4, 2).repeat_interleave(2, 3)
    found = pool_features(features, masks)
    for image in range(2):
        for mask in range(6):
            some = pixels[image][:, masks[image, mask] > 0]
            expected = some.mean(1) if some.numel() else torch.zeros(5)
            assert torch.allclose(found[image, mask], expected, atol=1e-6)


def test_a_model_is_read_as_it_was_written(model, clip, tmp_path):
    image = pictures(1)[0]
    found = model.segments(image, WORDS, stuff=["red car"], seen=["cat"])
    assert found.places.shape == (image.height, image.width)
    assert found.places.max() < len(found.labels) == len(found.scores)
    model.save_pretrained(tmp_path / "own")
    again = OpenPanoptic.from_pretrained(tmp_path / "own")
    for part in ("places", "labels", "scores"):
        other = getattr(again.segments(image, WORDS, stuff=["red car"], seen=["cat"]), part)
        assert torch.equal(getattr(found, part), other)
    (tmp_path / "own" / "words.safetensors").unlink()  # without it the CLIP alone would say words
    with pytest.raises(InputError, match=r"has no words\.safetensors"):
        OpenPanoptic.from_pretrained(tmp_path / "own")
    # A Mask2Former of transformers alone, in its own colours: words are the CLIP's.
    model.masker.save_pretrained(tmp_path / "masks")
    Mask2FormerImageProcessorPil(image_mean=[0.1, 0.2, 0.3]).save_pretrained(tmp_path / "masks")
    bare = OpenPanoptic.load(clip, str(tmp_path / "masks"), PLAIN)
    assert bare.settings.mean == (0.1, 0.2, 0.3)
    with torch.no_grad():
        pixels = bare.pixels([image])
        own = bare(pixels, bare.word_vectors(WORDS))[-1]
        picture = bare.clip.processor.image_processor
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (picture.image_mean, picture.image_std))
        recoloured = (pixels * std + mean - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / (
            torch.tensor(bare.settings.deviation).view(3, 1, 1)
        )
        peer = bare.masker(recoloured)
    assert torch.allclose(own["masks_queries_logits"], peer.masks_queries_logits, atol=1e-5)
    void = own["class_queries_logits"].softmax(-1)[..., -1]
    assert torch.allclose(void, peer.class_queries_logits.softmax(-1)[..., -1], atol=1e-5)


def test_the_loss_is_transformers_own(model):
    """With one class, of its own class predictor's logits; pictures without segments beside."""
    torch.manual_seed(0)
    pixels = model.pixels(pictures(2))
    masks = [(torch.rand(2, 64, 64) < 0.5).float(), (torch.rand(1, 64, 64) < 0.5).float()]
    labels = [torch.tensor([0, 0]), torch.tensor([0])]
    found = model.masker.model(pixels, output_hidden_states=True)
    layers = [
        {
            "masks_queries_logits": mask,
            "class_queries_logits": model.masker.class_predictor(state.transpose(0, 1)),
        }
        for state, mask in zip(
            found.transformer_decoder_intermediate_states, found.masks_queries_logits, strict=True
        )
    ]
    torch.manual_seed(3)  # the points that masks are compared at
    own = mask_loss(model.masker, layers, masks, labels)
    torch.manual_seed(3)
    peer = model.masker(pixels, mask_labels=masks, class_labels=labels).loss
    assert torch.allclose(own, peer.squeeze(), rtol=1e-5)
    nothing = [torch.zeros(0, 64, 64)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2
    bare = mask_loss(model.masker, layers, *nothing)
    logits = torch.cat([layer["class_queries_logits"].flatten(0, 1) for layer in layers])
    expected = -2 * len(layers) * logits.log_softmax(-1)[:, 1].mean()
    assert torch.allclose(bare, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "more", "said"),
    [
        ([], {}, "there are no words"),
        (["cat", " "], {}, "has an empty name"),
        (["cat"], {"stuff": ["sky"]}, "'sky' is to be stuff, but it is none of the words"),
    ],
)
def test_words_that_are_none_are_refused(model, words, more, said):
    with pytest.raises(InputError, match=said):
        model.segments(pictures(1)[0], words, **more)


def test_sizes_that_do_not_divide_are_refused(clip, model):
    for sizes, said in (
        ({"side": 60}, "pictures of 60 pixels do not divide into patches of 8"),
        ({"side": 64, "window": 20}, "windows of 20 pixels do not divide"),
        ({"side": 64, "window": 128}, "a window of 128 pixels does not fit"),
    ):
        with pytest.raises(InputError, match=said):
            OpenPanoptic(clip, model.masker, PanopticModelSettings(**sizes))


@pytest.fixture(scope="module")
def world(tmp_path_factory, own_cache) -> Path:
    return glyph_world(tmp_path_factory.mktemp("panoptic"), RECIPE)


@pytest.fixture(scope="module")
def ran(world) -> Path:
    done = call(world, "run", "pages.yaml", "--out", "ran")
    assert done.code == 0, done.err
    return world / "ran"


@pytest.mark.slow
def test_a_run_measures_every_method_and_shows_segments(ran):
    rows = {row["method"]: row for row in results(ran)["rows"]}
    assert list(rows) == RECIPE["methods"]
    for row in rows.values():
        assert 0 <= row["pq"] <= row["sq"] <= 1
        assert row["pq_interval"][0] <= row["pq"] <= row["pq_interval"][1]
        assert row["segments"] == row["segments_seen"] + row.get("segments_new", 0)
    # Of the last image layer dense features use the values alone.
    assert rows["hyperclip-8"]["clip_numbers"] == (3 + 1) * 32 * 8
    page = (ran / "report.html").read_text()
    for text in ("Found segments", "<path d=", "paper</title>", "PQ"):
        assert text in page
    settings = json.loads((ran / "model" / "panoptic.json").read_text())
    assert "plain paper" in settings["stuff"]
    assert set(settings["stuff"]) < set(settings["seen"])


def test_panoptic_writes_a_picture(ran, world):
    Image.new("RGB", (50, 40), "white").save(world / "photo.png")
    command = ("panoptic", "ran", "photo.png", "--words", "plain paper,alpha/A")
    done = call(world, *command, "--out", "found.png")
    assert done.code == 0, done.err
    assert "Picture: found.png" in done.out
    with Image.open(world / "found.png") as found:
        assert found.height >= 40
    for arguments, said in (
        (("ran", "photo.png", "--words", "a,,b"), "holds an empty word"),
        (("ran", "photo.png", "--words", "a", "--stuff", "b"), "'b' is to be stuff"),
        (("base", "photo.png", "--words", "a"), "holds no panoptic model"),
    ):
        done = call(world, "panoptic", *arguments)
        assert done.code == 2
        assert said in " ".join(done.err.split())


def write_set(root: Path, names: list[str], size: int = 40) -> None:
    """Three pictures of two segments in COCO's format, the second class stuff."""
    random = np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    annotations = []
    for number in range(3):
        Image.fromarray(random.integers(256, size=(size, 48, 3), dtype=np.uint8)).save(
            root / "images" / f"{number}.jpg"
        )
        ids = np.zeros((40, 48, 3), dtype=np.uint8)
        ids[:20, :, 0], ids[20:, :24, 1] = 7, 1
        Image.fromarray(ids).save(root / "masks" / f"{number}.png")
        segments = [{"id": 7, "category_id": 1}, {"id": 256, "category_id": 184, "iscrowd": 0}]
        annotations.append(
            {"image_id": number, "file_name": f"{number}.png", "segments_info": segments}
        )
    categories = [
        {"id": identity, "name": name, "isthing": int(identity < 90)}
        for identity, name in zip((1, 184), names, strict=True)
    ]
    found = {"annotations": annotations, "categories": categories}
    (root / "panoptic.json").write_text(json.dumps(found))


def coco(name: str) -> str:
    return (
        f"{{kind: coco-panoptic, images: {name}/images, masks: {name}/masks, "
        f"annotations: {name}/panoptic.json}}"
    )


@pytest.mark.slow
def test_segments_from_a_path_with_other_classes_in_the_test(world):
    write_set(world / "train", ["person", "tree-merged"])
    write_set(world / "test", ["Person, human", "sky"])
    command = ("run", "pages.yaml", "--out", "path", "methods=[hyperclip-8]")
    done = call(world, *command, f"data={coco('train')}", f"test={coco('test')}")
    assert done.code == 0, done.err
    (row,) = results(world / "path")["rows"]
    assert row["segments_seen"] == row["segments_new"] == 3
    settings = json.loads((world / "path" / "model" / "panoptic.json").read_text())
    assert settings["seen"] == ["person", "tree-merged"]
    assert settings["stuff"] == ["tree-merged"]


def unlisted(root: Path) -> None:
    found = json.loads((root / "panoptic.json").read_text())
    found["annotations"][0]["segments_info"].pop()
    (root / "panoptic.json").write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["methods=[hyperclip-5]"], "blocks of 5 do not divide a width of 32"),
        (["methods=[hyperclip-8-radius-6]"], "a radius is for segmentation alone"),
        (["side=60"], "pictures of 60 pixels do not divide into patches of 8"),
        (["masks.heads=3"], "3 heads do not divide a width of 32"),
        (["masks.checkpoint=nowhere/at/all"], "does not exist"),
        (["masks.checkpoint=base"], "is a clip"),
        ([f"data={coco('small')}", f"test={coco('small')}"], "segments '"),
        ([f"data={coco('unlisted')}", f"test={coco('unlisted')}"], "show the id 256, which"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(world, changes, said):
    if not (world / "small").exists():
        write_set(world / "small", ["person", "sky"], 30)
        write_set(world / "unlisted", ["person", "sky"])
        unlisted(world / "unlisted")
    done = call(world, "run", "pages.yaml", "--out", "refused", *changes)
    assert done.code == 2
    assert said in " ".join(done.err.split())
    assert not (world / "refused" / "results.json").exists()


def test_shapes_of_a_page_cover_the_pixels_of_their_label():
    labels = np.random.default_rng(0).integers(-1, 3, (9, 7)).repeat(2, 0)
    found = region_paths(labels)
    assert list(found) == sorted(set(labels.flatten().tolist()) - {-1})
    drawn = np.full(labels.shape, -1)
    for label, path in found.items():
        for left, top, width, height in re.findall(r"M(\d+) (\d+)h(\d+)v(\d+)h-\d+z", path):
            rows, columns = slice(int(top), int(top) + int(height)), slice(int(left), None)
            part = drawn[rows, columns][:, : int(width)]
            assert (part == -1).all()
            part[:] = label
    assert np.array_equal(drawn, labels)
