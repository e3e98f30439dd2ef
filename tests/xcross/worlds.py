"""Small data sets on disk, and recipes over them that run in seconds."""

import csv
import random
from pathlib import Path

import yaml

WORDS = {
    "books": (["thrilling", "witty", "moving"], ["dull", "trite", "endless"]),
    "toys": (["funny", "sturdy", "colourful"], ["broken", "fragile", "loud"]),
    "tools": (["sharp", "solid", "precise"], ["blunt", "rusty", "bent"]),
}
GENRES = {"comedy": "Comedy", "drama": "Drama", "war": "War"}


def write_reviews(path: Path, count: int = 60) -> Path:
    """Reviews of three domains, of which single words tell whether they praise."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label", "domain"])
        for domain, (praise, blame) in WORDS.items():
            for number in range(count):
                label = ("sad", "glad")[number % 2]
                word = (praise if label == "glad" else blame)[number % 3]
                rows.writerow([f"{domain} {number}: so {word}", label, domain])
    return path


def write_ratings(folder: Path, users: int = 24) -> Path:
    """Ratings in RecBole's format, of fourteen movies a genre; users take them in order."""
    folder.mkdir()
    draw = random.Random(0)
    movies, ratings = [], []
    for number, genre in enumerate(GENRES.values()):
        for movie in range(14):
            movies.append(f"{number * 14 + movie}\t{genre} {movie}\t19{60 + movie}\t{genre}")
        for user in range(users):
            for time, movie in enumerate(sorted(draw.sample(range(14), 6))):
                ratings.append(f"{user}\t{number * 14 + movie}\t4\t{time}")
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    (folder / "small.inter").write_text("\n".join([header, *ratings]) + "\n")
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
    (folder / "small.item").write_text("\n".join([header, *movies]) + "\n")
    return folder


def training(steps: int, **more) -> dict:
    return {"steps": steps, "batch_size": 4, "learning_rate": 0.005, "log_every": 5} | more


def recipe(folder: Path, kind: str, **changed) -> Path:
    """A recipe file for reviews or ratings, over ``base`` beside it."""
    reviews = {"kind": "classification", "path": "reviews.csv"}
    groups = {name: [genre] for name, genre in GENRES.items()}
    ratings = {"kind": "movielens", "path": "ratings", "groups": groups}
    names = {"reviews": list(WORDS), "ratings": list(GENRES)}[kind]
    content = {
        "recipe": "xcross",
        "title": f"Small {kind}",
        "base": "base",
        "precision": "float32",
        "sources": names[:2],
        "target": names[2],
        "data": {"reviews": reviews, "ratings": {**ratings, "k_core": 2, "negatives": 7}}[kind],
        "prompt": {"max_tokens": 40, "item_tokens": 16},
        "lora": {"rank": 2, "alpha": 4},
        "source_training": training(20),
        "lora_training": training(20),
        "training": training(10),
        "methods": ["sources", "xcross"],
        "curve": None,
        "examples": 2,
    }
    path = folder / f"{kind}.yaml"
    path.write_text(yaml.safe_dump(content | changed, sort_keys=False))
    return path
