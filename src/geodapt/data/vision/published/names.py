"""Class names of published data sets whose files do not have them."""

from importlib.resources import files

# COCO's things that no picture was annotated with, by id.
UNUSED_THINGS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}

VOC = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""The values 1 to 20 of Pascal VOC's masks."""

CONTEXT_59 = {
    # The id among Pascal Context's 459 classes, and its name.
    2: "aeroplane", 9: "bag", 18: "bed", 19: "bedclothes", 22: "bench", 23: "bicycle",
    25: "bird", 31: "boat", 33: "book", 34: "bottle", 44: "building", 45: "bus",
    46: "cabinet", 59: "car", 65: "cat", 68: "ceiling", 72: "chair", 80: "cloth",
    85: "computer", 98: "cow", 104: "cup", 105: "curtain", 113: "dog", 115: "door",
    144: "fence", 158: "floor", 159: "flower", 162: "food", 187: "grass", 189: "ground",
    207: "horse", 220: "keyboard", 232: "light", 258: "motorbike", 259: "mountain",
    260: "mouse", 284: "person", 295: "plate", 296: "platform", 308: "pottedplant",
    324: "road", 326: "rock", 347: "sheep", 349: "shelves", 354: "sidewalk", 355: "sign",
    360: "sky", 366: "snow", 368: "sofa", 397: "table", 415: "track", 416: "train",
    420: "tree", 424: "truck", 427: "tvmonitor", 440: "wall", 445: "water", 454: "window",
    458: "wood",
}  # fmt: skip


def coco_stuff() -> dict[int, str]:
    """COCO-Stuff's 171 classes: COCO's id, and the name as published in its ``labels.txt``."""
    text = files("geodapt.data.vision.published").joinpath("coco_stuff.txt").read_text("utf-8")
    rows = (line.split(": ", 1) for line in text.splitlines())
    return {int(number): name for number, name in rows if int(number) not in UNUSED_THINGS}
