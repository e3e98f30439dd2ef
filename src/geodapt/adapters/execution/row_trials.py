"""What passes of a model with other rows show of where its layers hold them.

Layers get their input batch first, sequence first, flattened, in windows, gathered by expert or
shared by all rows, and no name says which. So the model runs as it is and a few times with some
rows' inputs changed, without adapters and without gradients. Where a layer's input changed shows
which row it belongs to.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from geodapt.adapters.base_model.lowering import lowering_of
from geodapt.adapters.execution.altered_inputs import Arguments, altered
from geodapt.adapters.execution.calls import Call
from geodapt.adapters.execution.resolved_gate import ResolvedGate
from geodapt.adapters.execution.row_layout import (
    Place,
    RowLayout,
    combine_layouts,
    differs,
    locate_rows,
    rounding,
    sketch,
    splits,
)
from geodapt.adapters.execution.row_order import HOW, backwards, growing, in_order
from geodapt.adapters.execution.same_inputs import DisturbedRows, Key, Seen, Sketch, effects
from geodapt.adapters.gates import Off
from geodapt.adapters.store.adapter_store import AdapterStore


class RowTrials:
    """A call's model, run again with other rows by ``look``, which records what its layers get."""

    def __init__(
        self,
        call: Call,
        args: tuple,
        kwargs: dict[str, Any],
        store: AdapterStore,
        look: Callable[..., Seen],
    ) -> None:
        assert call.rows is not None
        self._call, self._store, self._look, self._rows = call, store, look, call.rows
        self._inputs: list[Arguments] = [(args, kwargs)]
        self._chosen = splits(call.rows)
        self._plain: Seen = {}
        """What the layers get of the call as it is."""

    def layouts(self) -> dict[Key, RowLayout | str]:
        """Where the input of each layer holds the rows, or why that is not known.

        Raises what the model raises on other inputs.
        """
        runs = [
            self._look(self._call, *self._copies(self._inputs[0], rows, seed))
            for seed, rows in enumerate([[], *self._chosen])
        ]
        self._plain = runs[0]
        return {
            key: _found([run.get(key, []) for run in runs], self._chosen, self._rows)
            for key in dict.fromkeys(key for run in runs for key in run)
        }

    def out_of_order(self, known: Mapping[Key, RowLayout]) -> list[Key]:
        """The layers of known layout that hold the rows in an order which their lengths decide, or
        as many positions of each as lengths, labels and masks leave.

        Raises what the model raises on its own inputs' rows in the other order.
        """
        others = self._copies(self._inputs[0], range(self._rows), len(self._chosen) + 1)
        for how in (*HOW, None):
            one = growing(self._call, others, self._store.model, how) if how else others
            orders = [one, backwards(self._call, one)]
            try:
                with _in_evaluation(self._call.module):
                    seen, turned = (self._look(self._call, *self._copies(o)) for o in orders)
            except Exception:
                if how:  # it takes no rows of such lengths
                    continue
                raise
            self._inputs += orders
            return [
                key
                for key, layout in known.items()
                if not in_order(seen.get(key, []), turned.get(key, []), layout, self._call)
                or (layout.counts != {1} and _shapes(seen, key) != _shapes(self._plain, key))
            ]
        return []

    def first(self, same: Collection[Key], known: Mapping[Key, RowLayout]) -> set[Key]:
        """The layers, of those with the same input for all rows, that hold them first.

        Learned queries are repeated for each row before a layer reads the row. If noise in the
        output's first places changes, in all that is known of, these rows alone, they hold the
        rows.
        """
        found = set(same)
        for inputs in self._inputs if same else ():
            plain, *changed = (
                self._disturbed(inputs, DisturbedRows(frozenset(same), self._rows, rows))
                for rows in [[], *self._chosen]
            )
            found &= plain.disturbed
            if not found or any(
                effects((plain.seen, plain.outputs), (run.seen, run.outputs), known, self._rows)
                != set(rows)
                for run, rows in zip(changed, self._chosen, strict=True)
            ):
                return set()
        return found

    def _copies(self, inputs: Arguments, rows: Collection[int] = (), seed: int = 0) -> Arguments:
        args, kwargs = inputs
        return altered(self._call.module, args, kwargs, rows, seed, self._store.model)

    def _disturbed(self, inputs: Arguments, noise: DisturbedRows) -> "Recorder":
        recorder = Recorder(self._store, noise)
        self._look(self._call, *self._copies(inputs), recorder=recorder)
        return recorder


@contextmanager
def _in_evaluation(module: nn.Module) -> Iterator[None]:
    """Without dropout, whose noise stays in its place when the rows change theirs."""
    training = [each for each in module.modules() if each.training]
    for each in training:
        each.training = False
    try:
        yield
    finally:
        for each in training:
            each.training = True


class Recorder(ResolvedGate):
    """A gate without adapters that records what the layers get, as sketches."""

    looks = True

    def __init__(self, store: AdapterStore, noise: DisturbedRows | None = None) -> None:
        super().__init__(store, Off())
        self.seen: Seen = {}
        self.outputs: list[Sketch] = []
        """Sketches of what the call gives with a row for each of the batch's."""
        self.disturbed: set[Key] = set()
        self._noise = noise
        self.paused = False

    @property
    def result(self) -> tuple[Seen, list[Sketch]]:
        """What the layers got, and what the call gave."""
        return self.seen, self.outputs

    def run(
        self,
        path: str,
        layer: nn.Module,
        base: Callable[[Tensor], Tensor],
        x: Tensor,
        place: Place,
    ) -> Tensor:
        y = base(x)
        self.note(path, layer, x, y)
        if self._noise is None or not self._noise.fits(path, x, y) or self.paused:
            return y
        self.disturbed.add((path, x.ndim))
        return self._noise.put_into(y)

    def note(self, path: str, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        """Record what a layer gets when it returns ``y``."""
        lower = lowering_of(layer)
        self.record(path, x if lower is None else lower(x, y)[0])

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Record nothing inside of the block."""
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before

    def record(self, path: str, x: Tensor) -> None:
        """Record what a module gets."""
        if not self.paused:
            self.seen.setdefault((path, x.ndim), []).append((sketch(x), rounding(x.dtype)))


def _shapes(seen: Seen, key: Key) -> list[torch.Size]:
    return [record.shape for record, _ in seen.get(key, [])]


def _found(records: list[list[Sketch]], chosen: list[list[int]], rows: int) -> RowLayout | str:
    """A layer's layout, from what it got as it is and under each change."""
    plain, *changed = records
    found: RowLayout | str | None = None
    if any(len(record) != len(plain) for record in changed):
        return "depends on the rows' content"
    for i, (before, tolerance) in enumerate(plain):
        if any(record[i][0].shape != before.shape for record in changed):
            return "has a shape that depends on the rows' content"
        places = [
            (differs(before, record[i][0], tolerance), split)
            for record, split in zip(changed, chosen, strict=True)
        ]
        layout = locate_rows(places, rows)
        found = layout if found is None else combine_layouts(found, layout)
    return found if found is not None else "was not seen when the rows were traced"
