"""The `radial-query` recipe: a text or an image, as concepts from general to specific."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from geodapt.data.hierarchy_settings import HierarchySettings
from geodapt.data.text_files import existing, lines
from geodapt.errors import InputError
from geodapt.paths import names_file
from geodapt.radial.results import RetrievedChain
from geodapt.runs import Recipe, RunFolder
from geodapt.settings import GivenPath
from geodapt.vision.images import IMAGE_SUFFIXES


class RadialQueryRecipe(Recipe):
    """Ask an encoder, tuned or not, what a text or an image is, from general to specific."""

    recipe: Literal["radial-query"] = "radial-query"
    model: str = "minilm"
    """A run's model folder, or any encoder: a folder, a hub name, minilm or clip-glyphs."""
    queries: list[str] = Field(min_length=1)
    """Texts, or paths of images for an encoder of images."""
    candidates: GivenPath | None = None
    """A file with one candidate text per line; none: the texts of `data`."""
    data: HierarchySettings | None = None
    """A hierarchy whose texts are the candidates."""
    steps: int = Field(default=50, ge=2)
    """Radii between the most general and the most specific candidate."""

    def run(self, folder: RunFolder) -> dict[str, Any]:
        # Here, so that the recipe is checked before torch is imported.
        import torch

        from geodapt.radial.images import embed_images, image_files
        from geodapt.radial.model import RadialModel

        texts = self._texts()
        model = RadialModel.load(self.model)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        images = [query for query in self.queries if _is_image(query)]
        found = embed_images(model.encoder, image_files(images)) if images else None
        rows = dict(zip(found.names, found.vectors, strict=True)) if found else {}
        skipped = {name for name, _ in found.skipped} if found else set()
        asked = [query for query in self.queries if query not in skipped]
        written = [query for query in asked if query not in rows]
        if written:
            rows |= zip(written, model.embed(written, "embedding queries"), strict=True)
        index = model.index(texts)
        chains = model.retrieve(torch.stack([rows[query] for query in asked]), index, self.steps)
        return {
            "recipe": self.recipe,
            "title": self.title,
            "base": self.model,
            "chains": [
                RetrievedChain(query=query, steps=chain).model_dump()
                for query, chain in zip(asked, chains, strict=True)
            ],
            "data": {"candidates": len(index.texts)},
            "notes": [note for note in [found.note() if found else ""] if note],
        }

    @model_validator(mode="after")
    def _consistent(self) -> "RadialQueryRecipe":
        if (self.candidates is None) == (self.data is None):
            raise ValueError(
                "give candidates (a file, one text per line) or data (a hierarchy), and not both"
            )
        for number, query in enumerate(self.queries, 1):
            if not query.strip():
                raise ValueError(f"query {number} is empty; give a text or the path of an image")
        return self

    def require_inputs(self) -> None:
        super().require_inputs()
        for query in self.queries:
            if _is_image(query) and not names_file(query):
                raise InputError(f"image '{query}' does not exist; give the path of one that does")

    def _texts(self) -> list[str]:
        if self.data is not None:
            from geodapt.data.loading import load_hierarchy

            hierarchy = load_hierarchy(self.data)
            chains = [*hierarchy.train, *hierarchy.test]
            return list(dict.fromkeys(text for chain in chains for text in chain.texts))
        path = existing(self.candidates or Path())  # one of both, as the settings say
        return [text.strip() for _, text in lines(path) if text.strip()]


def _is_image(query: str) -> bool:
    return query.lower().endswith(IMAGE_SUFFIXES)
