"""MovieLens, as published (ml-100k, ml-1m) and as RecBole's atomic files; domains are genres.

F. M. Harper and J. A. Konstan, "The MovieLens Datasets: History and Context" (2015).
https://grouplens.org/datasets/movielens/ and https://recbole.io/docs/user_guide/data/atomic_files.html
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from geodapt.data.domain import Domain
from geodapt.data.interactions import Interactions, moment
from geodapt.data.settings import MovieLensSettings
from geodapt.data.text_files import existing, find, not_found, records, rows
from geodapt.errors import InputError

# The order of the flags in ml-100k's u.item.
GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery"),
    *("Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


@dataclass(frozen=True)
class Movie:
    """A movie as all three formats describe it."""

    title: str
    year: str
    genres: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.title} ({self.year})" if self.year else self.title

    @property
    def text(self) -> str:
        return f"{self.name}: {', '.join(self.genres)}"


@dataclass(frozen=True)
class Rating:
    """That a user rated a movie, and when (in seconds)."""

    user: str
    movie: str
    time: int


def load_movielens(settings: MovieLensSettings) -> dict[str, Domain]:
    """The genre groups in the order asked for.

    Each user's ratings in a group, of any value, are one sequence ordered by time. Raises
    :class:`InputError` for a missing folder or file, a malformed line, a genre or group that is not
    there, and a group with too few movies.
    """
    names = settings.domains or list(settings.groups)
    for name in names:
        if name not in settings.groups:
            raise InputError(
                f"domain '{name}' is no genre group; groups has {', '.join(settings.groups)}"
            )
    movies, ratings = read_movielens(existing(settings.path))
    _check_genres(settings.groups, movies.values())
    tables = {name: Interactions() for name in names}
    group_of = {movie: _group(movies[movie], settings.groups) for movie in movies}
    for rating in ratings:
        if rating.movie not in movies:
            raise InputError(
                f"{settings.path}: user {rating.user} rated movie {rating.movie}, which is not in "
                "the list of movies; are both files of the same data set?"
            )
        table = tables.get(group_of[rating.movie] or "")
        if table is not None:
            table.add(rating.user, rating.movie, rating.time)
    domains = {}
    for name, table in tables.items():
        texts = [(movies[movie].name, movies[movie].text) for movie in table.item_numbers]
        domains[name] = table.domain(name, texts, settings)
    return domains


def _check_genres(groups: dict[str, list[str]], movies: Iterable[Movie]) -> None:
    known = {genre for movie in movies for genre in movie.genres}
    for name, genres in groups.items():
        if not known.intersection(genres):
            raise InputError(
                f"group '{name}': no movie has a genre of {', '.join(genres) or '(none given)'}; "
                f"the genres are {', '.join(sorted(known))}"
            )


def _group(movie: Movie, groups: dict[str, list[str]]) -> str | None:
    return next((name for name, genres in groups.items() if {*genres} & {*movie.genres}), None)


# --- the three formats -------------------------------------------------------------------------


def read_movielens(folder: Path) -> tuple[dict[str, Movie], Iterable[Rating]]:
    """Movies by id, and ratings in the file's order, from whichever format the folder holds."""
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; give the folder of the MovieLens files")
    if (ratings := find(folder, "u.data")) and (movies := find(folder, "u.item")):
        return (
            dict(records(movies, _movie_100k, "24 fields with | between", "latin-1")),
            records(ratings, _rating("\t"), "user, item, rating and time, with tabs between"),
        )
    if (ratings := find(folder, "ratings.dat")) and (movies := find(folder, "movies.dat")):
        return (
            dict(records(movies, _movie_1m, "MovieID::Title::Genres", "latin-1")),
            records(ratings, _rating("::"), "UserID::MovieID::Rating::Timestamp", "latin-1"),
        )
    atomic = [sorted(folder.glob(pattern)) for pattern in ("*.inter", "*.item")]
    if all(len(found) == 1 for found in atomic):
        return _read_atomic(atomic[0][0], atomic[1][0])
    raise not_found(
        folder,
        "MovieLens files (u.data and u.item, or ratings.dat and movies.dat, or one .inter and one "
        ".item)",
    )


def _rating(separator: str) -> Callable[[str], Rating]:
    def parse(line: str) -> Rating:
        user, movie, stars, time = line.split(separator)
        float(stars)
        return Rating(user, movie, moment(time))

    return parse


def _movie_100k(line: str) -> tuple[str, Movie]:
    number, title, _, _, _, *flags = line.split("|")
    genres = tuple(g for g, flag in zip(GENRES, flags, strict=True) if flag == "1")
    return number, _movie(title, genres)


def _movie_1m(line: str) -> tuple[str, Movie]:
    number, title, genres = line.split("::")
    return number, _movie(title, tuple(genres.split("|")))


def _movie(title: str, genres: tuple[str, ...], year: str = "") -> Movie:
    """``Matrix, The (1999)`` is The Matrix of 1999."""
    if match := re.fullmatch(r"(.*\S)\s*\((\d{4})\)", title):
        title, year = match.groups()
    if match := re.fullmatch(r"(.+), (The|A|An)( \(.*\))?", title):
        title = f"{match[2]} {match[1]}{match[3] or ''}"
    return Movie(title, year, genres)


def _read_atomic(interactions: Path, items: Path) -> tuple[dict[str, Movie], Iterable[Rating]]:
    movies = {}
    for _, row in _atomic_rows(items, "item_id", "movie_title"):
        genres = row.get("class") or row.get("genre") or ""
        title, year = row["movie_title"], row.get("release_year", "")
        movies[row["item_id"]] = _movie(title, tuple(genres.split()), year)
    return movies, _atomic_ratings(interactions)


def _atomic_ratings(path: Path) -> Iterator[Rating]:
    for number, row in _atomic_rows(path, "user_id", "item_id", "timestamp"):
        try:
            yield Rating(row["user_id"], row["item_id"], moment(float(row["timestamp"])))
        except (ValueError, OverflowError) as error:
            raise InputError(
                f"{path}, line {number}: expected a timestamp in seconds, found "
                f"'{row['timestamp']}'"
            ) from error


def _atomic_rows(path: Path, *wanted: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of an atomic file, whose header is ``name:type`` (token, token_seq, float) with tabs."""
    for number, cells in rows(path, "\t"):
        row = {column.split(":")[0]: cell for column, cell in cells.items()}
        if missing := [column for column in wanted if column not in row]:
            raise InputError(
                f"{path} has no column {' and no column '.join(missing)}; it has {', '.join(row)}"
            )
        yield number, row
