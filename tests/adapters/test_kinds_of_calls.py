"""What chooses another way through a model makes another kind of call: flags and arguments."""

from enum import Enum
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from geodapt.adapters import Off, Route
from geodapt.errors import InputError
from tests.adapters.filled import filled

ROWS = ["toys", None, "books"]


class TurnedAround(nn.Module):
    """A flag decides which dimension a layer gets first; the batch is the first in any case."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x, way="rows"):
        y = self.first(x if way == "rows" else x.transpose(0, 1))
        return self.second(torch.tanh(y if way == "rows" else y.transpose(0, 1)))


class ReadAtTimes(nn.Module):
    """A flag decides whether a layer is called or its weight read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x, fused=False):
        y = nn.functional.linear(x, self.first.weight, self.first.bias) if fused else self.first(x)
        return self.second(torch.tanh(y))


@pytest.mark.parametrize("ways", [("rows", "columns"), ("columns", "rows")])
@torch.no_grad()
def test_a_layout_that_a_flag_changes_is_not_taken_from_another_call(ways):
    bank = filled(TurnedAround(), ["first", "second"])
    x = torch.randn(3, 3, 6)  # as many rows as positions: shapes tell nothing
    wanted = {}
    for way in ways:
        each = []
        for i, name in enumerate(ROWS):
            with bank.use(name or Off()):
                each.append(bank.model(x, way)[i])
        wanted[way] = torch.stack(each)
    with bank.use(Route(ROWS)):
        for way in ways:
            torch.testing.assert_close(bank.model(x, way=way), wanted[way])
            with pytest.raises(InputError, match="in different places from call to call"):
                bank.model(x, ways[1 - ways.index(way)])
            break
    with bank.use("toys"):
        bank.model(x, ways[1])


class Part(nn.Module):
    """Turns its input around, or reads a weight, where something of its own says so."""

    named, shared = "no", False

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.number, self.options, self.settings = 0, {"odd": False}, SimpleNamespace(odd=None)
        self.empty: dict[str, bool] = {}
        self.axes, self.share = (0, 1), 0.25
        self.act: nn.Module = nn.Tanh()

    def odd(self):
        return (
            self.number == 300
            or self.named == "yes"
            or self.shared
            or self.options["odd"]
            or "new" in self.empty
            or self.axes == (1, 0)
            or self.share > 0.5
            or self.settings.odd is not None
            or isinstance(self.act, nn.Sigmoid)
        )


class Turning(Part):
    def forward(self, x):
        odd = self.odd()
        y = self.act(self.layer(x.transpose(0, 1) if odd else x))
        return y.transpose(0, 1) if odd else y


class Reading(Part):
    def forward(self, x):
        if self.odd():
            return self.act(nn.functional.linear(x, self.layer.weight, self.layer.bias))
        return self.act(self.layer(x))


class Whole(nn.Module):
    def __init__(self, part: Part) -> None:
        super().__init__()
        self.parts = nn.ModuleList([Turning(), part])

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x


CHANGES = {
    "number": lambda part: setattr(part, "number", 300),
    "word": lambda part: setattr(part, "named", "yes"),
    "class": lambda part: setattr(type(part), "shared", True),
    "option": lambda part: part.options.update(odd=True),
    "new option": lambda part: part.empty.update(new=True),
    "axes": lambda part: setattr(part, "axes", (1, 0)),
    "share": lambda part: setattr(part, "share", 0.75),
    "settings": lambda part: setattr(part.settings, "odd", "any"),
    "child": lambda part: setattr(part, "act", nn.Sigmoid()),
    "method": lambda part: setattr(part, "odd", lambda: True),
}


@pytest.mark.parametrize("kind", [Turning, Reading])
@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_what_changes_in_a_part_is_seen(kind, change, monkeypatch):
    monkeypatch.setattr(kind, "shared", False)
    bank = filled(Whole(kind()), ["layer"])
    x = torch.randn(3, 3, 6)  # as many rows as positions: shapes tell nothing
    gate = Route(ROWS) if kind is Turning else "toys"
    told = "in different places from call to call" if kind is Turning else "read without calling"
    with bank.use(gate):
        for _ in range(2):
            bank.model(x)
        CHANGES[change](bank.model.parts[1])
        with pytest.raises(InputError, match=rf"layer parts.\d.layer .*{told}"):
            bank.model(x)


class Counting(Turning):
    """Counts its calls, and runs none of them in another way for it."""

    def forward(self, x):
        self.number += 1
        return super().forward(x)


@torch.no_grad()
def test_what_only_counts_is_no_flag_for_long():
    bank = filled(Whole(Counting()), ["layer"])
    counting, x = bank.model.parts[1], torch.randn(3, 3, 6)
    with bank.use(Route(ROWS)):
        for _ in range(20):
            bank.model(x)
        before = counting.number
        for _ in range(5):
            bank.model(x)
        assert counting.number == before + 5  # no more trials
        CHANGES["option"](counting)
        with pytest.raises(InputError, match="in different places from call to call"):
            bank.model(x)


class Windows(nn.Module):
    """Windows of two positions, in runs of each row or in tiles, as an argument says."""

    def __init__(self, odd) -> None:
        super().__init__()
        self.inner, self.odd = nn.Linear(6, 6), odd

    def forward(self, x, way=None, position_ids=None, attention_mask=None, timestep=0):
        given = {"way": way, "places": position_ids, "mask": attention_mask, "step": timestep}
        given["size"] = x.shape[:2]
        odd, rows, windows = self.odd(SimpleNamespace(**given)), len(x), x.shape[1] // 2
        h = x.unflatten(1, (windows, 2))
        y = self.inner((h.transpose(0, 1) if odd else h).flatten(0, 1))
        y = y.unflatten(0, (windows, rows)).transpose(0, 1) if odd else y.unflatten(0, (rows, -1))
        return y.flatten(1, 2)


class Way(Enum):
    RUNS, TILES = 1, 2


def by_way(one, other):
    return {"way": one}, {"way": other}, lambda given: given.way == other


ASKED = {
    "float": by_way(0.5, 1.5),
    "tuple": by_way((0, 1), (1, 0)),
    "list": by_way([0], [1]),
    "set": by_way({0}, {1}),
    "enum": by_way(Way.RUNS, Way.TILES),
    "dictionary": by_way({"a": {"b": 0}}, {"a": {"b": 1}}),
    "options": by_way(SimpleNamespace(odd=0), SimpleNamespace(odd=1)),
    "slice": by_way(slice(1), slice(2)),
    "complex": by_way(1j, 2j),
    "numpy": by_way(np.float32(1), np.float32(2)),
    "type": by_way(torch.float16, torch.float32),
    "function": by_way(torch.tanh, torch.relu),
    "none": by_way(None, "any"),
    "whole number": ({"timestep": 1}, {"timestep": 9}, lambda given: given.step > 5),
    "positions": ({}, {"position_ids": torch.arange(8)[None]}, lambda g: g.places is not None),
    "mask": (
        {"attention_mask": torch.ones(3, 8)},
        {"attention_mask": torch.ones(3, 8, 8)},
        lambda given: given.mask.ndim == 3,
    ),
}


@pytest.mark.parametrize("asked", ASKED)
@torch.no_grad()
def test_arguments_that_choose_another_way_are_another_kind_of_call(asked):
    first, then, odd = ASKED[asked]
    x = torch.randn(3, 8, 6)
    for ways in ((first, then), (then, first)):
        bank = filled(Windows(odd), ["inner"])
        alone = []
        for i, name in enumerate(ROWS):
            with bank.use(name or Off()):
                alone.append(bank.model(x[i : i + 1], **ways[0]))
        with bank.use(Route(ROWS)):
            torch.testing.assert_close(bank.model(x, **ways[0]), torch.cat(alone))
            with pytest.raises(InputError, match="in different places from call to call"):
                bank.model(x, **ways[1])


@torch.no_grad()
def test_a_way_that_the_length_chooses_is_seen_where_shapes_are_square():
    class ByLength(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 6)

        def forward(self, x):
            odd = x.shape[1] < 4
            y = self.inner(x.transpose(0, 1) if odd else x)
            return y.transpose(0, 1) if odd else y

    bank = filled(ByLength(), ["inner"])
    with bank.use(Route(ROWS)):
        bank.model(torch.randn(3, 5, 6))
        with pytest.raises(InputError, match="in different places from call to call"):
            bank.model(torch.randn(3, 3, 6))


SIZES = {
    "length": ((3, 8), (3, 4)),
    "longer than many": ((3, 8), *((3, n) for n in range(10, 50, 2)), (3, 4)),
    "rows": ((3, 8), (6, 8)),
}


@pytest.mark.parametrize("sizes", SIZES)
@torch.no_grad()
def test_windows_in_an_order_that_the_size_chooses_are_seen(sizes):
    *before, last = SIZES[sizes]
    bank = filled(Windows(lambda given: given.size == last), ["inner"])
    for rows, length in before:
        with bank.use(Route(ROWS * (rows // 3))):
            bank.model(torch.randn(rows, length, 6))
    rows, length = last
    route = bank.use(Route(ROWS * (rows // 3)))
    with route, pytest.raises(InputError, match="in different places from call to call"):
        bank.model(torch.randn(rows, length, 6))


@torch.no_grad()
def test_sizes_between_many_others_need_no_trial():
    sizes = []
    bank = filled(Windows(lambda given: sizes.append(given.size)), ["inner"])
    with bank.use(Route(ROWS)):
        for length in (10, 98, *range(20, 60, 2)):
            bank.model(torch.randn(3, length, 6))
        sizes.clear()
        for length in (12, 58, 72):
            bank.model(torch.randn(3, length, 6))
        assert sizes == [(3, 12), (3, 58), (3, 72)]
        bank.model(torch.randn(3, 100, 6))
    assert len(sizes) > 5


COMPUTED = {
    "gradients": (torch.is_grad_enabled, torch.enable_grad),
    "autocast": (
        lambda: torch.is_autocast_enabled("cpu"),
        lambda: torch.autocast("cpu", torch.bfloat16),
    ),
}


@pytest.mark.parametrize("way", COMPUTED)
@torch.no_grad()
def test_a_way_that_the_computation_chooses_is_another_kind_of_call(way):
    holds, within = COMPUTED[way]
    bank = filled(Windows(lambda given: holds()), ["inner"])
    x = torch.randn(3, 8, 6)
    with bank.use(Route(ROWS)):
        bank.model(x)
        with within(), pytest.raises(InputError, match="in different places from call to call"):
            bank.model(x)


@torch.no_grad()
def test_a_way_that_a_type_of_numbers_chooses_is_another_kind_of_call():
    class ReadInHalf(ReadAtTimes):
        def forward(self, x):
            return super().forward(x.float(), fused=x.dtype is torch.bfloat16)

    bank, x = filled(ReadInHalf(), ["first", "second"]), torch.randn(2, 3, 6)
    with bank.use("toys"):
        bank.model(x)
        with pytest.raises(InputError, match="layer first is read without calling"):
            bank.model(x.bfloat16())


@pytest.mark.parametrize("fused", [False, True])
@torch.no_grad()
def test_a_weight_that_only_some_calls_read_is_refused_in_those_calls_alone(fused):
    bank = filled(ReadAtTimes(), ["first", "second"])
    x = torch.randn(2, 3, 6)
    with bank.use("toys"):
        for asked in (fused, not fused, fused):
            if asked:
                with pytest.raises(InputError, match="layer first is read without calling"):
                    bank.model(x, asked)
            else:
                assert bank.model(x, fused=False).shape == x.shape


@pytest.mark.parametrize("lengths", [(8, 2), (8, *range(10, 50), 2), (2, 8)])
@torch.no_grad()
def test_a_weight_that_only_short_rows_read_is_refused_with_those_alone(lengths):
    class ReadWhenShort(ReadAtTimes):
        def forward(self, x):
            return super().forward(x, fused=x.shape[1] < 4)

    bank = filled(ReadWhenShort(), ["first", "second"])
    with bank.use("toys"):
        for length in (*lengths, *lengths):
            x = torch.randn(3, length, 6)
            if length >= 4:
                bank.model(x)
                continue
            with pytest.raises(InputError, match="layer first is read without calling"):
                bank.model(x)
