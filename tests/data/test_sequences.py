"""k-core, splits and negatives against slow obvious references, and what every domain promises."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from geodapt.data.domain import SPLITS, split_of
from geodapt.data.sequences import (
    SequenceSettings,
    Trail,
    build_domain,
    draw_outside,
    k_core,
    leave_one_out,
    rows_by_group,
)
from geodapt.errors import InputError

interactions = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=60)


def naive_core(pairs, per_user, per_item):
    """Drop one user or item at a time, whichever has too few, until none has."""
    pairs = set(pairs)
    while True:
        users, items = Counter(u for u, _ in pairs), Counter(i for _, i in pairs)
        smaller = {(u, i) for u, i in pairs if users[u] >= per_user and items[i] >= per_item}
        if smaller == pairs:
            return pairs
        pairs = smaller


@given(interactions, st.integers(1, 4), st.integers(1, 4))
def test_k_core_equals_the_naive_one(pairs, per_user, per_item):
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    stays = k_core(table[:, 0], table[:, 1], per_user, per_item)
    kept = naive_core(pairs, per_user, per_item)
    assert stays.tolist() == [pair in kept for pair in pairs]


@given(st.sets(st.integers(0, 19), max_size=15), st.integers(0, 2**32), st.data())
def test_negatives_are_different_and_not_taken(taken, seed, data):
    count = data.draw(st.integers(1, 20 - len(taken)))
    drawn = draw_outside(
        np.array(sorted(taken), dtype=np.int64), 20, count, np.random.default_rng(seed)
    )
    assert len(set(drawn.tolist())) == count
    assert set(drawn.tolist()) <= set(range(20)) - taken


def test_negatives_are_uniform_over_what_is_left():
    taken, generator = np.array([0, 3, 4, 9]), np.random.default_rng(0)
    drawn = np.concatenate([draw_outside(taken, 10, 2, generator) for _ in range(6000)])
    counts = np.bincount(drawn, minlength=10)
    assert counts[taken].sum() == 0
    left = np.delete(counts, taken)
    # 2000 expected each; the standard deviation of one count is about 37.
    assert np.abs(left - 2000).max() < 150


def test_leave_one_out_is_chronological_and_forgets_repeats():
    rows = leave_one_out(
        [Trail("ann", (5, 6, 5, 7, 8, 9))], SequenceSettings(history=2, min_history=1)
    )
    seen = {(row.history, row.target) for row in rows["train"]}
    assert seen == {((5,), 6), ((5, 6), 7)}
    assert [(r.history, r.target) for r in rows["validation"]] == [((6, 7), 8)]
    assert [(r.history, r.target) for r in rows["test"]] == [((7, 8), 9)]
    assert rows["test"][0].seen == {5, 6, 7, 8, 9}


def test_leave_one_out_waits_for_the_fewest_items_before_a_target():
    rows = leave_one_out([Trail("ann", (1, 2, 3, 4, 5))], SequenceSettings(min_history=3))
    assert [(r.history, r.target) for r in rows["validation"]] == [((1, 2, 3), 4)]
    assert rows["train"] == []


@pytest.mark.parametrize(
    ("calls", "history", "target"),
    [
        ((1, 2), (1,), 2),
        ((1, 2, 1, 3, 1), (1, 2, 1), 3),  # the last item that is new
        ((1, 2, 1, 2), (1,), 2),
        ((1, 1, 2, 2, 3), (1, 2), 3),  # runs are one
        ((1, 2, 3, 4, 5, 6), (2, 3, 4, 5), 6),  # the most recent four
    ],
)
def test_by_group_takes_the_last_new_item(calls, history, target):
    rows = rows_by_group([Trail("f", calls, "file")], SequenceSettings(history=4))
    (row,) = [row for split in SPLITS for row in rows[split]]
    assert (row.history, row.target) == (history, target)


@pytest.mark.parametrize("calls", [(1,), (1, 1, 1)])
def test_by_group_has_no_row_without_a_history(calls):
    rows = rows_by_group([Trail("f", calls, "file")], SequenceSettings())
    assert not any(rows.values())


def test_by_group_never_cuts_a_group():
    trails = [Trail(str(n), (n % 7, 7 + n % 5), f"file{n % 40}") for n in range(400)]
    rows = rows_by_group(trails, SequenceSettings())
    groups = {split: {int(row.user) % 40 for row in rows[split]} for split in SPLITS}
    assert sum(len(found) for found in groups.values()) == 40
    assert set.union(*groups.values()) == set(range(40))


def test_splits_have_their_shares_and_follow_the_seed():
    counts = Counter(split_of(f"file{n}", 0) for n in range(10_000))
    assert counts["train"] == pytest.approx(7000, abs=200)
    assert counts["validation"] == pytest.approx(1000, abs=150)
    assert counts["test"] == pytest.approx(2000, abs=200)
    assert any(split_of(f"file{n}", 0) != split_of(f"file{n}", 1) for n in range(20))


# --- whole domains -----------------------------------------------------------------------------

ITEMS = [(f"item{n:02}", f"item{n:02}: what it is") for n in range(60)]


def random_trails(seed, users=80, files=25):
    generator = np.random.default_rng(seed)
    return [
        Trail(
            f"user{n}",
            tuple(generator.integers(0, 60, generator.integers(3, 12)).tolist()),
            f"file{n % files}",
        )
        for n in range(users)
    ]


def check(domain, chosen):
    """Everything that :class:`Domain` promises."""
    assert domain.items.column_names == ["name", "text"]
    assert len(set(domain.items["name"])) == len(domain.items)
    assert list(domain.splits) == list(SPLITS)
    looks = []
    for rows in domain.splits.values():
        assert rows.column_names == ["user", "history", "target", "negatives"]
        for row in rows.to_list():
            assert 1 <= len(row["history"]) <= chosen.history
            assert row["target"] not in row["history"]
            assert len(set(row["negatives"])) == len(row["negatives"]) == chosen.negatives
            assert not set(row["negatives"]) & {*row["history"], row["target"]}
            assert all(0 <= item < len(domain.items) for item in row["negatives"])
            looks.append((tuple(row["history"]), row["target"]))
    assert len(set(looks)) == len(looks)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 10), st.booleans())
def test_a_domain_keeps_its_promises(seed, history, grouped):
    chosen = SequenceSettings(history=history, negatives=20, seed=seed)
    trails = random_trails(seed)
    rows = (rows_by_group if grouped else leave_one_out)(trails, chosen)
    assume(all(rows.values()))
    domain = build_domain("made", rows, ITEMS, chosen)
    check(domain, chosen)
    names = list(domain.items["name"])
    trail_of = {trail.user: [ITEMS[item][0] for item in trail.items] for trail in trails}
    for split in SPLITS:
        for row in domain.splits[split].to_list():
            taken = set(trail_of[row["user"]])
            assert {names[item] for item in [*row["history"], row["target"]]} <= taken
            assert not taken & {names[item] for item in row["negatives"]}


def test_the_same_seed_gives_the_same_domain_and_another_seed_another():
    def made(seed):
        chosen = SequenceSettings(seed=seed, negatives=20)
        return build_domain("made", rows_by_group(random_trails(0), chosen), ITEMS, chosen)

    first, again, other = made(0), made(0), made(1)
    for split in SPLITS:
        assert first.splits[split].to_dict() == again.splits[split].to_dict()
    assert first.splits["test"].to_dict() != other.splits["test"].to_dict()


def test_a_row_in_two_splits_stays_in_the_test_split():
    files = {split_of(name, 0): name for name in (f"file{n}" for n in range(50))}
    trails = [Trail(f"{s}-copy", (1, 2), files[s]) for s in SPLITS]
    trails += [Trail(f"{s}-own", (n + 3, n + 10), files[s]) for n, s in enumerate(SPLITS)]
    chosen = SequenceSettings(negatives=3)
    domain = build_domain("made", rows_by_group(trails, chosen), ITEMS, chosen)
    users = {split: sorted(domain.splits[split]["user"]) for split in SPLITS}
    assert users == {
        "train": ["train-own"],
        "validation": ["validation-own"],
        "test": ["test-copy", "test-own"],
    }


def test_rows_can_be_limited():
    whole = SequenceSettings(negatives=20)
    some = SequenceSettings(negatives=20, max_train=30, max_test=5)
    rows = leave_one_out(random_trails(0), whole)
    full, cut = build_domain("made", rows, ITEMS, whole), build_domain("made", rows, ITEMS, some)
    assert [len(cut.splits[split]) for split in SPLITS] == [30, 5, 5]
    users = full.splits["test"]["user"]
    assert set(cut.splits["test"]["user"]) < set(users)
    assert cut.items.to_dict() == full.items.to_dict()


def test_too_few_items_for_the_negatives():
    chosen = SequenceSettings(negatives=29)
    rows = leave_one_out([Trail("ann", (1, 2, 3, 4, 5))], chosen)
    with pytest.raises(InputError, match=r"'small' has 5 items, too few for 29 negatives.*set"):
        build_domain("small", rows, ITEMS, chosen)


def test_a_user_who_took_nearly_all():
    chosen = SequenceSettings(negatives=12)
    trails = [Trail("ann", tuple(range(20))), Trail("bob", (1, 2, 3, 4, 20, 21, 22))]
    with pytest.raises(InputError, match=r"'ann' took 20 of them, which leaves 3.*set negatives"):
        build_domain("small", leave_one_out(trails, chosen), ITEMS, chosen)


def test_nothing_left():
    chosen = SequenceSettings()
    with pytest.raises(InputError, match=r"domain 'none' is empty.*k_core \(5\)"):
        build_domain("none", leave_one_out([], chosen), ITEMS, chosen)


def test_an_empty_split():
    chosen = SequenceSettings(negatives=2)
    rows = leave_one_out([Trail("ann", (1, 2, 3))], chosen)
    with pytest.raises(InputError, match="domain 'short' has no train rows"):
        build_domain("short", rows, ITEMS, chosen)


def test_a_split_whose_rows_are_all_in_another():
    chosen = SequenceSettings(negatives=2)
    rows = leave_one_out([Trail("ann", (1, 2, 3, 4))], chosen)
    with pytest.raises(InputError, match="no validation rows, or none that is not in another"):
        build_domain("copied", {**rows, "validation": rows["test"]}, ITEMS, chosen)
