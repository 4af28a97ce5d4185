"""Contest bundles and rating populations as files: what a Codeforces rating is computed from.

A bundle is one JSON file (also gzipped) for one contest::

    {"schema": "retort/contest/1",
     "contest": {"id": "1350", "name": "…", "scoring": "points" | "icpc"},
     "standings": [[points, penalty, rating before], …],      one row per rated participant
     "problems": [{"index": "A", "points": 500, "problem": {…} | null}, …]}

``problem`` is the row, tests included, that the judge reads; null where only the standings are
known. Participants' names are used to join the site's two answers and are not kept. A file of rows
under ``data`` — [contestant, points, penalty, rating before, …] — is read as standings too.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from evaluator.errors import InputError

SCHEMA = "retort/contest/1"
SUFFIXES = (".json", ".json.gz")
MOST_BYTES = (
    512 << 20
)  # of a file's text, unpacked; a bundle of ten problems with tests has a tenth

Array = npt.NDArray[np.float64]


class Scoring(StrEnum):
    """How a contest ranks: by points that shrink with attempts, or by problems, then penalty."""

    POINTS = "points"
    ICPC = "icpc"


@dataclass(frozen=True, slots=True)
class ContestProblem:
    """One problem of a contest; ``points`` is its full score, None under ICPC scoring."""

    index: str  # "A", "B1" …
    points: float | None = None
    problem: Mapping[str, Any] | None = None  # the row that the judge reads, with its tests

    @property
    def id(self) -> str | None:
        """The problem's id in the benchmark; None where the bundle holds no problem for it."""
        return None if self.problem is None else str(self.problem["id"])


@dataclass(frozen=True, eq=False, slots=True)
class Standings:
    """Rated participants of one contest, in any order; three arrays (M,) of one length ≥ 1."""

    points: Array  # points, or problems solved
    penalty: Array  # minutes; 0 where points alone rank
    ratings: Array  # rating before the contest, Elo points

    def __len__(self) -> int:
        return len(self.ratings)

    def better_and_tied(self, points: float, penalty: float) -> tuple[int, int]:
        """How many rank above (points, penalty), how many tie: more points, then less penalty."""
        equal = self.points == points
        better = (self.points > points) | (equal & (self.penalty < penalty))
        tied = equal & (self.penalty == penalty)
        return int(better.sum()), int(tied.sum())

    def without(self, row: int) -> Standings:
        """The same contest had the participant in ``row`` not come."""
        return Standings(*(np.delete(a, row) for a in (self.points, self.penalty, self.ratings)))


@dataclass(frozen=True, slots=True)
class Contest:
    """A contest bundle; ``scoring`` is None where the file holds standings only."""

    id: str
    name: str
    standings: Standings
    scoring: Scoring | None = None
    problems: tuple[ContestProblem, ...] = ()

    def bare(self) -> Contest:
        """The contest without the problems' texts and tests: what a rating needs, ids kept."""
        return replace(
            self,
            problems=tuple(
                each if each.id is None else replace(each, problem={"id": each.id})
                for each in self.problems
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the bundle as plain JSON values; needs ``scoring``."""
        assert self.scoring is not None, "a file of standings alone is no bundle"
        columns = (self.standings.points, self.standings.penalty, self.standings.ratings)
        return {
            "schema": SCHEMA,
            "contest": {"id": self.id, "name": self.name, "scoring": str(self.scoring)},
            "standings": [
                [_plain(float(value)) for value in row] for row in zip(*columns, strict=True)
            ],
            "problems": [
                {
                    "index": each.index,
                    "points": None if each.points is None else _plain(each.points),
                    "problem": None if each.problem is None else dict(each.problem),
                }
                for each in self.problems
            ],
        }


@dataclass(frozen=True, eq=False, slots=True)
class Population:
    """A named set of ratings that percentiles refer to; ``ratings`` (P,) ascending, P ≥ 1."""

    name: str
    ratings: Array = field(repr=False)

    @classmethod
    def of(cls, name: str, ratings: Sequence[float] | Array) -> Population:
        """A population from ratings in any order."""
        return cls(name, np.sort(np.asarray(ratings, dtype=float)))

    def to_json(self) -> dict[str, Any]:
        """Name and {rating: how many}, as plain JSON values."""
        values, counts = np.unique(self.ratings, return_counts=True)
        pairs = zip(values.tolist(), counts.tolist(), strict=True)
        return {"name": self.name, "counts": {str(_plain(value)): count for value, count in pairs}}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Population:
        """The population of :meth:`to_json`."""
        values = [float(value) for value in row["counts"]]
        return cls.of(row["name"], np.repeat(values, list(row["counts"].values())))

    def percentile(self, rating: float) -> float:
        """Share of the population strictly below ``rating``, in percent."""
        below = int(np.searchsorted(self.ratings, rating, side="left"))
        return 100 * below / len(self.ratings)


def read_contest(path: Path) -> Contest:
    """Read a bundle, or a file of standings; raises InputError naming file and field."""
    document = read_json(path)
    if not isinstance(document, dict):
        raise InputError(f"{path.name}: it is not a JSON object; give a contest bundle.")
    try:
        if "schema" in document:
            return read_bundle(document)
        if "data" in document:
            name = stem(path)
            return Contest(id=name, name=name, standings=_standings(document["data"], "data", 1))
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None
    raise InputError(
        f"{path.name}: neither schema nor data is in it; "
        "give a bundle that import-contest wrote, or rows of standings under data."
    )


def read_bundles(folder: Path) -> list[Contest]:
    """Every bundle of a folder, in order of file name; InputError for an id that comes twice.

    An empty folder gives an empty list: without bundles there is no rating, only a solve rate.
    """
    contests: dict[str, Contest] = {}
    for path in sorted(folder.iterdir()):
        if not path.name.endswith(SUFFIXES):
            continue
        contest = read_contest(path)
        if contest.id in contests:
            raise InputError(f"{path.name}: contest {contest.id} is in the folder twice.")
        contests[contest.id] = contest
    return list(contests.values())


def read_population(path: Path) -> Population:
    """Read ratings, a JSON list or an object {rating: how many}; the file gives the name."""
    document = read_json(path)
    if isinstance(document, dict):
        try:
            values = [float(rating) for rating in document]
        except ValueError:
            raise InputError(
                f"{path.name}: a key is not a number; give {{rating: count}}."
            ) from None
        counts = list(document.values())
        if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in counts):
            raise InputError(f"{path.name}: a count is no whole number; give {{rating: count}}.")
        if sum(counts) > _MOST_RATINGS:
            raise InputError(f"{path.name}: more than {_MOST_RATINGS:,} ratings; check the counts.")
        ratings = np.repeat(_numbers(values, path.name), counts)
    elif isinstance(document, list):
        ratings = _numbers(document, path.name)
    else:
        raise InputError(f"{path.name}: it is no list of ratings; give a JSON list of numbers.")
    if not len(ratings):
        raise InputError(f"{path.name}: it holds no ratings; give a file that does.")
    return Population.of(stem(path), ratings)


def read_json(path: Path) -> Any:
    """The JSON value in a .json or .json.gz file; raises InputError naming file and reason.

    No more than MOST_BYTES of text are taken in: a packed bomb ends there.
    """
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"{path.name}: the kind of file is not known; give .json or .json.gz.")
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path.name}: cannot be read ({reason}); check the file.") from None
    if len(data) > MOST_BYTES:
        raise InputError(
            f"{path.name}: more than {MOST_BYTES >> 20} MiB of text; give one contest a file, or "
            "its problems with fewer tests."
        )
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise InputError(f"{path.name}: it is not JSON; check the file.") from None


def stem(path: Path) -> str:
    """A file's name without .json or .json.gz."""
    return path.name.removesuffix(".gz").removesuffix(".json")


def is_number(value: object) -> TypeGuard[int | float]:
    """A number within ±1e9, as every rating, score and penalty is; true, false and nan are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


_MOST_RATINGS = 20_000_000  # no site has so many people; keeps a wrong count out of memory
_LARGEST = 1e9  # no rating, score or penalty comes near; keeps sums and powers finite


def read_bundle(document: Mapping[str, Any]) -> Contest:
    """A bundle from :meth:`Contest.to_json`'s form; raises InputError naming the field."""
    if document["schema"] != SCHEMA:
        raise InputError(f"schema: {document['schema']!r} is not known; give {SCHEMA}.")
    head = document.get("contest")
    if not isinstance(head, dict) or not all(
        isinstance(head.get(key), str) and head[key] for key in ("id", "name", "scoring")
    ):
        raise InputError("contest: give id, name and scoring, texts all.")
    if head["scoring"] not in list(Scoring):
        raise InputError(f"contest.scoring: {head['scoring']!r} is not {' or '.join(Scoring)}.")
    scoring = Scoring(head["scoring"])
    rows = document.get("problems")
    if not isinstance(rows, list):
        raise InputError("problems: give a list.")
    problems = tuple(contest_problem(row, scoring, n) for n, row in enumerate(rows, start=1))
    if len({each.index for each in problems}) < len(problems):
        raise InputError("problems: an index comes twice; give each problem its own.")
    return Contest(
        id=head["id"],
        name=head["name"],
        standings=_standings(document.get("standings"), "standings", 0),
        scoring=scoring,
        problems=problems,
    )


def contest_problem(row: Any, scoring: Scoring, number: int) -> ContestProblem:
    """A bundle's ``number``-th problem from its row; raises InputError naming the field."""
    where = f"problems, row {number}"
    if not isinstance(row, dict) or not isinstance(row.get("index"), str) or not row["index"]:
        raise InputError(f"{where}: index is missing; give a letter.")
    points = row.get("points") if scoring is Scoring.POINTS else None
    if scoring is Scoring.POINTS and (not is_number(points) or points < 0):
        raise InputError(f"{where}: points must be a number, not negative; give the full score.")
    problem = row.get("problem")
    if problem is not None and not (isinstance(problem, dict) and "id" in problem):
        raise InputError(f"{where}: problem has no id; give the judge's row or null.")
    return ContestProblem(
        index=row["index"],
        points=None if points is None else float(points),
        problem=problem,
    )


def _standings(rows: Any, name: str, skipped: int) -> Standings:
    """Standings from rows whose first ``skipped`` cells are names."""
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{name}: there are no rows; give one for each rated participant.")
    fields = ("points", "penalty", "rating before")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, list) or len(row) < skipped + len(fields):
            wanted = ", ".join((("contestant",) if skipped else ()) + fields)
            raise InputError(f"{name}, row {number}: give {wanted}.")
        for cell, value in zip(fields, row[skipped:], strict=False):
            if not is_number(value):
                raise InputError(
                    f"{name}, row {number}: {cell} {value!r:.40} is no number within ±1e9."
                )
    table = np.array([row[skipped : skipped + len(fields)] for row in rows], dtype=float)
    return Standings(*(np.ascontiguousarray(column) for column in table.T))


def _numbers(values: Sequence[Any], name: str) -> Array:
    for place, value in enumerate(values, start=1):
        if not is_number(value):
            raise InputError(f"{name}: rating {place} ({value!r:.40}) is no number within ±1e9.")
    return np.asarray(values, dtype=float)


def _plain(value: float) -> int | float:
    return int(value) if math.isfinite(value) and value.is_integer() else value
