"""The table of claims: as its data, with commands that exist; a row runs once and is kept."""

import re
import sys
from pathlib import Path

import claims
import pytest
import yaml
from scipy import stats

from geodapt.errors import InputError
from geodapt.recipes.catalog import packaged

ROOT = Path(__file__).parents[1]


def test_the_page_has_the_table_of_the_data():
    text = (ROOT / "docs/claims.md").read_text()
    assert text == claims.page(text, claims.read_claims()), "python benchmarks/claims.py --write"


def test_every_command_names_what_there_is():
    for row in claims.read_claims().values():
        for script in re.findall(r"python (benchmarks/\S+)", row.command):
            assert (ROOT / script).is_file(), row.name
        for path in re.findall(r"tests/\S+", row.command):
            assert (ROOT / path).is_file(), row.name
        for recipe in re.findall(r"geodapt run (\S+)", row.command):
            assert recipe in packaged(), row.name
        page = row.source.partition("; ")[2]
        assert not page or (ROOT / "docs" / page).is_file(), row.name


def test_intervals_and_power():
    two = claims.Difference(what="x", ours=(10.0, 1.0), other=(8.0, 2.0), runs=4, relative=True)
    middle, half = two.interval()
    expected = stats.ttest_ind_from_stats(10, 1, 4, 8, 2, 4, equal_var=False)
    assert middle == pytest.approx(25.0)
    freedom = (1 / 4 + 1) ** 2 / ((1 / 4) ** 2 / 3 + 1 / 3)
    assert half == pytest.approx(100 / 8 * stats.t.ppf(0.975, freedom) * 1.25**0.5)
    assert (middle - half > 0) == (expected.pvalue < 0.05)
    one = claims.Difference(what="x", difference=5.4, error=1.4, runs=9, unit="points")
    assert str(one) == "x: +5.4 points (+2.2 to +8.6)"
    plan = claims.Plan(what="x", test_rows=5000, discordant=0.3)
    assert plan.visible() == pytest.approx(1.518, abs=1e-3)


def test_a_row_runs_once_and_is_kept(tmp_path, capsys):
    rows = tmp_path / "claims.yaml"
    count = f"{sys.executable} -c \"open('{tmp_path}/n', 'a').write('x'); print('seen', {{word}})\""
    entry = {
        "name": "a", "claim": "c", "source": "s", "command": count, "minutes": 1,
        "verdict": "holds", "figure": "1",
    }  # fmt: skip
    rows.write_text(yaml.safe_dump([entry]))
    row = claims.read_claims(rows)["a"]
    with pytest.raises(InputError, match="--set word=PATH"):
        claims.run(row, tmp_path / "out", {})
    for _ in range(2):
        assert claims.run(row, tmp_path / "out", {"word": "3"}) == 0
        assert "seen 3" in capsys.readouterr().out
    assert (tmp_path / "n").read_text() == "x"
    here = claims.given_files([f"word={tmp_path}/../{tmp_path.name}", "model=some/name"])
    assert here == {"word": str(tmp_path), "model": "some/name"}
    with pytest.raises(InputError, match="expected NAME=PATH"):
        claims.given_files(["word"])
    for wrong, message in (
        ({"verdict": "maybe"}, "verdict is 'maybe'"),
        ({"verdict": "open"}, "either measured"),
    ):
        rows.write_text(yaml.safe_dump([entry | wrong]))
        with pytest.raises(InputError, match=message):
            claims.read_claims(rows)
