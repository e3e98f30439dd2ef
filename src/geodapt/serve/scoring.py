"""The systems that score texts: X-Cross, radial encoders and classifiers, behind one thread."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from geodapt.errors import InputError
from geodapt.serve.text_shelf import TextShelf

if TYPE_CHECKING:
    from PIL.Image import Image

    from geodapt.radial import Index, RadialModel
    from geodapt.radial.results import RetrievalStep
    from geodapt.vision import Clip
    from geodapt.xcross.model import XCross

T = TypeVar("T")
Run = Callable[[Callable[[], Any]], "Future[Any]"]
MOST_INDEXES = 64
"""Embedded lists that are kept; the one made first makes room."""


class NotServed(InputError):
    """A system that this server was not started with."""


def own_thread() -> Run:
    """A thread that runs one piece of work after the other, for a server without an engine.

    It does not keep the process from ending.
    """
    works: queue.SimpleQueue[tuple[Future, Callable[[], Any]]] = queue.SimpleQueue()

    def work_off() -> None:
        while True:
            future, work = works.get()
            if future.set_running_or_notify_cancel():  # nobody has left meanwhile
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)

    def run(work: Callable[[], Any]) -> "Future[Any]":
        future: Future[Any] = Future()
        works.put((future, work))
        return future

    threading.Thread(target=work_off, daemon=True, name="scoring").start()
    return run


class Embedded(NamedTuple):
    """What an encoder makes of some texts."""

    vectors: list[list[float]]
    radii: list[float]
    """Distances from the nearest root: small is general."""
    tokens: int
    """Tokens that were read."""


@dataclass
class Scoring:
    """What a server scores with. Each method returns at once; its result comes from ``run``'s
    thread, which alone touches the models."""

    run: Run
    ranker: "XCross | None" = None
    classifier: "XCross | None" = None
    encoder: "RadialModel | None" = None
    catalogues: TextShelf = field(default_factory=lambda: TextShelf(None))
    indexes: TextShelf = field(default_factory=lambda: TextShelf(None))
    _embedded: dict[tuple[str, ...], "Index"] = field(default_factory=dict)
    _tower: "Clip | None" = None

    def ranked(self, history: Sequence[str], candidates: Sequence[str]) -> "Future[list[float]]":
        """X-Cross' score of each candidate after a history, oldest first; higher is better."""
        if self.ranker is None:
            raise NotServed("no model that ranks is served here; start the server with --rank")
        ranker = self.ranker
        return self.run(lambda: ranker.rank(history, candidates))

    def embedded(self, texts: Sequence[str]) -> "Future[Embedded]":
        """Unit vectors of texts, their distances from the nearest root, and the tokens read."""
        encoder = self._encoder()

        def work() -> Embedded:
            index = encoder.index(texts)
            place = {text: row for row, text in enumerate(index.texts)}
            rows = [place[text] for text in texts]
            radii = index.radii.min(0).values
            tokens = encoder.encoder.tokens(texts)
            return Embedded(
                index.vectors[rows].tolist(),
                radii[rows].tolist(),
                int(tokens["attention_mask"].sum()),
            )

        return self.run(work)

    def retrieved(
        self, queries: "Sequence[str] | Sequence[Image]", texts: Sequence[str], steps: int
    ) -> "Future[list[list[RetrievalStep]]]":
        """For each query, a text or a picture, its chain of texts from general to specific."""
        encoder, key = self._encoder(), tuple(texts)

        def work() -> "list[list[RetrievalStep]]":
            if key not in self._embedded:
                made = encoder.index(texts)
                while len(self._embedded) >= MOST_INDEXES:
                    del self._embedded[next(iter(self._embedded))]
                self._embedded[key] = made
            asked: Any = list(queries)
            if not isinstance(asked[0], str):
                asked = self._image_tower().embed_images(asked)
            return encoder.retrieve(asked, self._embedded[key], steps)

        return self.run(work)

    def classified(
        self, texts: Sequence[str], labels: Sequence[str] | None
    ) -> "Future[list[dict[str, float]]]":
        """Each text's score by label: probabilities of the classifier; with ``labels``, cosines
        between the text and each label by the encoder (zero-shot)."""
        if labels is not None:
            encoder = self._encoder()

            def compared() -> list[dict[str, float]]:
                cosines = encoder.embed(texts) @ encoder.embed(labels).T
                return [dict(zip(labels, row, strict=True)) for row in cosines.tolist()]

            return self.run(compared)
        if self.classifier is None:
            raise NotServed(
                "no classifier is served here; give 'labels' to an encoder (--embed), or start "
                "the server with --classify"
            )
        classifier = self.classifier

        def work() -> list[dict[str, float]]:
            names = classifier.settings.labels
            rows = classifier.label_probabilities(texts).tolist()
            return [dict(zip(names, row, strict=True)) for row in rows]

        return self.run(work)

    def _image_tower(self) -> "Clip":
        from geodapt.radial.images import dual_clip

        self._tower = self._tower or dual_clip(self._encoder().encoder)
        return self._tower

    def _encoder(self) -> "RadialModel":
        if self.encoder is None:
            raise NotServed("no encoder is served here; start the server with --embed")
        return self.encoder
