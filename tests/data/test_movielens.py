"""MovieLens in its three formats, which hold the same small data set here."""

import random

import pytest

from geodapt.data import MovieLensSettings, load_domains
from geodapt.data.movielens import GENRES, _movie
from geodapt.data.settings import GROUPS
from geodapt.errors import InputError

TITLES = ["Café Lumière", "Twelve Monkeys", "Usual Suspects, The"]
MOVIES = {
    str(number): (
        f"{TITLES[number]}" if number < len(TITLES) else f"Movie {number}",
        str(1950 + number),
        ["Comedy"] if number % 2 else ["Drama", "War"] if number % 3 else ["Drama", "Romance"],
    )
    for number in range(60)
}
GROUPED = {"comedy": ["Comedy"], "drama": ["Drama"]}


def ratings():
    generator = random.Random(0)
    rows = []
    for user in range(40):
        for movie in generator.sample(sorted(MOVIES), 24):
            rows.append((str(user), movie, str(generator.randint(1, 5)), generator.randint(1, 999)))
    return rows


def write_100k(folder):
    lines = ["\t".join(map(str, row)) for row in ratings()]
    (folder / "u.data").write_text("\n".join(lines) + "\n")
    movies = []
    for number, (title, year, genres) in MOVIES.items():
        flags = "|".join("1" if genre in genres else "0" for genre in GENRES)
        movies.append(f"{number}|{title} ({year})|01-Jan-{year}||http://imdb|{flags}")
    (folder / "u.item").write_text("\n".join(movies) + "\n", encoding="latin-1")


def write_1m(folder):
    lines = ["::".join(map(str, row)) for row in ratings()]
    (folder / "ratings.dat").write_text("\n".join(lines) + "\n")
    movies = [f"{n}::{title} ({year})::{'|'.join(g)}" for n, (title, year, g) in MOVIES.items()]
    (folder / "movies.dat").write_text("\n".join(movies) + "\n", encoding="latin-1")


def write_recbole(folder):
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    lines = ["\t".join(map(str, row)) for row in ratings()]
    (folder / "ml.inter").write_text("\n".join([header, *lines]) + "\n")
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
    movies = [f"{n}\t{title}\t{year}\t{' '.join(g)}" for n, (title, year, g) in MOVIES.items()]
    (folder / "ml.item").write_text("\n".join([header, *movies]) + "\n")


FORMATS = {"100k": write_100k, "1m": write_1m, "recbole": write_recbole}


def settings(folder, **changes):
    return MovieLensSettings(**{"path": folder, "groups": GROUPED, "negatives": 5, **changes})


@pytest.fixture(params=FORMATS)
def folder(request, tmp_path):
    FORMATS[request.param](tmp_path)
    return tmp_path


def test_each_format_gives_the_same_domains(folder, tmp_path_factory):
    reference = tmp_path_factory.mktemp("reference")
    write_recbole(reference)
    domains, expected = load_domains(settings(folder)), load_domains(settings(reference))
    assert list(domains) == ["comedy", "drama"]
    for name, domain in domains.items():
        assert domain.items.to_dict() == expected[name].items.to_dict()
        for split in domain.splits:
            assert domain.splits[split].to_dict() == expected[name].splits[split].to_dict()


def test_items_have_title_year_and_genres(folder):
    domains = load_domains(settings(folder))
    assert "Twelve Monkeys (1951): Comedy" in domains["comedy"].items["text"]
    assert "Café Lumière (1950): Drama, Romance" in domains["drama"].items["text"]
    assert "The Usual Suspects (1952): Drama, War" in domains["drama"].items["text"]


@pytest.mark.slow
def test_sequences_are_in_order_of_time(folder):
    domain = load_domains(settings(folder, history=30, k_core=1))["comedy"]
    names = domain.items["name"]
    for row in domain.splits["test"].to_list():
        mine = [
            (time, number)
            for number, (user, movie, _, time) in enumerate(ratings())
            if user == row["user"] and "Comedy" in MOVIES[movie][2]
        ]
        movies = [ratings()[number][1] for _, number in sorted(mine)]
        expected = [_movie(*MOVIES[m][:1], (), MOVIES[m][1]).name for m in movies]
        assert [names[item] for item in [*row["history"], row["target"]]] == expected


def test_domains_share_no_movie_and_come_as_asked(folder):
    groups = {"war": ["War"], "drama": ["Drama", "War"]}
    domains = load_domains(
        settings(folder, groups=groups, domains=["drama", "war"], k_core=2, negatives=3)
    )
    assert list(domains) == ["drama", "war"]
    assert not {*domains["war"].items["name"]} & {*domains["drama"].items["name"]}


def test_the_groups_that_come_with_it_cover_every_genre():
    assert sorted(g for genres in GROUPS.values() for g in genres) == sorted(GENRES[1:])


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Toy Story (1995)", "Toy Story (1995)"),
        ("Matrix, The (1999)", "The Matrix (1999)"),
        ("Seven (Se7en) (1995)", "Seven (Se7en) (1995)"),
        ("Tin Drum, The (Blechtrommel, Die) (1979)", "The Tin Drum (Blechtrommel, Die) (1979)"),
        ("unknown", "unknown"),
    ],
)
def test_titles(title, name):
    assert _movie(title, ()).name == name


# --- what can be wrong -------------------------------------------------------------------------


def test_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match="nowhere' does not exist"):
        load_domains(settings(tmp_path / "nowhere"))


def test_a_file_for_a_folder(tmp_path):
    write_100k(tmp_path)
    with pytest.raises(InputError, match="is a file; give the folder"):
        load_domains(settings(tmp_path / "u.data"))


def test_a_folder_without_the_files(tmp_path):
    (tmp_path / "u.data").write_text("")
    (tmp_path / "readme.txt").write_text("")
    with pytest.raises(
        InputError, match=r"has no MovieLens files \(u.data and u.item, or "
    ) as info:
        load_domains(settings(tmp_path))
    assert "it has readme.txt, u.data" in str(info.value)


def test_empty_data(tmp_path):
    write_100k(tmp_path)
    (tmp_path / "u.data").write_text("")
    with pytest.raises(InputError, match="domain 'comedy' is empty"):
        load_domains(settings(tmp_path))


@pytest.mark.parametrize(
    ("kind", "file", "line", "message"),
    [
        ("100k", "u.data", "1\t2\t3", "expected user, item, rating and time"),
        ("100k", "u.data", "1\t2\t3\tnoon", "expected user, item, rating and time"),
        ("100k", "u.item", "1|Title (1990)|0|1", "expected 24 fields"),
        ("1m", "ratings.dat", "1::2::3", "expected UserID::MovieID::Rating::Timestamp"),
        ("1m", "movies.dat", "1::Title", "expected MovieID::Title::Genres"),
        ("recbole", "ml.inter", "1\t2\t3", "expected 4 cells"),
        ("recbole", "ml.inter", "1\t2\t3\tnoon", "expected a timestamp in seconds"),
        ("recbole", "ml.item", "1\t2", "expected 4 cells"),
    ],
)
def test_a_malformed_line(tmp_path, kind, file, line, message):
    FORMATS[kind](tmp_path)
    path = tmp_path / file
    lines = path.read_text(encoding="latin-1").splitlines()
    path.write_text("\n".join([*lines[:6], line, *lines[6:]]), encoding="latin-1")
    with pytest.raises(InputError, match=rf"{file}, line 7: {message}"):
        load_domains(settings(tmp_path))


def test_a_missing_column(tmp_path):
    write_recbole(tmp_path)
    path = tmp_path / "ml.inter"
    path.write_text(path.read_text().replace("timestamp", "when"))
    with pytest.raises(InputError, match="no column timestamp; it has user_id, item_id, rating"):
        load_domains(settings(tmp_path))


def test_a_movie_that_is_not_listed(tmp_path):
    write_100k(tmp_path)
    with (tmp_path / "u.data").open("a") as file:
        file.write("1\t999\t5\t10\n")
    with pytest.raises(InputError, match="user 1 rated movie 999, which is not in the list"):
        load_domains(settings(tmp_path))


def test_a_genre_that_is_not_there(tmp_path):
    write_100k(tmp_path)
    with pytest.raises(InputError, match="group 'fun': no movie has a genre of Comdy; the genres"):
        load_domains(settings(tmp_path, groups={"fun": ["Comdy"]}))


def test_a_domain_that_is_no_group(tmp_path):
    write_100k(tmp_path)
    with pytest.raises(InputError, match="'fun' is no genre group; groups has comedy, drama"):
        load_domains(settings(tmp_path, domains=["fun"]))


def test_too_few_movies_for_the_negatives(tmp_path):
    write_100k(tmp_path)
    with pytest.raises(InputError, match="domain 'comedy' has 30 items, too few for 40 negatives"):
        load_domains(settings(tmp_path, negatives=40))
