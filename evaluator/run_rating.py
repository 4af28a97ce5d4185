"""The Codeforces rating of a run: its graded samples, set against the contests they come from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from evaluator.benchmarks.codeforces import ids_in
from evaluator.contests import (
    Contest,
    Population,
    read_bundle,
    read_bundles,
    read_contest,
    read_population,
)
from evaluator.errors import InputError
from evaluator.rating import CODEELO_SMALLEST, Attempts, Mode, rate_contests
from evaluator.records import Outcome

NO_BUNDLE = (
    "There is no contest bundle of these problems, so that nobody's place among people is known: "
    "only the share of problems solved."
)
INCOMPLETE = "Some samples have no verdict yet, so that there is no rating."
_NAMED_CONTESTS = 3


@dataclass(frozen=True, slots=True)
class Yardstick:
    """The contests that a run is set against, and whom its percentile refers to.

    Without a ``population`` that is the participants of the contests, and is called so.
    """

    contests: tuple[Contest, ...] = ()
    population: Population | None = None

    def __post_init__(self) -> None:
        """Raise InputError where a contest comes twice: it would count twice."""
        seen: set[str] = set()
        for contest in self.contests:
            if contest.id in seen:
                raise InputError(f"contests: {contest.id} comes twice; leave one bundle of it out.")
            seen.add(contest.id)

    @classmethod
    def read(cls, paths: Iterable[Path], population: Path | None = None) -> Self:
        """From bundles, or folders of them, and a file of ratings; raises InputError."""
        contests: list[Contest] = []
        for path in paths:
            contests += read_bundles(path) if path.is_dir() else [read_contest(path)]
        for contest in contests:
            if contest.scoring is None:
                raise InputError(
                    f"contests: {contest.name} holds standings only, which cannot rate a run; make "
                    "a bundle with import-contest."
                )
        return cls(tuple(contests), None if population is None else read_population(population))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, without the problems' texts and tests."""
        return {
            "contests": [contest.bare().to_json() for contest in self.contests],
            "population": None if self.population is None else self.population.to_json(),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """The yardstick of :meth:`to_json`; raises InputError naming the field."""
        named = row["population"]
        return cls(
            tuple(read_bundle(each) for each in row["contests"]),
            None if named is None else Population.from_json(named),
        )

    def rate(
        self, rows: Iterable[Mapping[str, Any]], *, problem_ids: Collection[str], samples: int
    ) -> dict[str, Any]:
        """Both modes' ratings of graded rows ``{problem_id, sample, outcome}``, as plain JSON.

        ``samples`` is the n asked for of every problem of ``problem_ids``. Contests count of which
        the benchmark holds a problem; a problem of theirs that it does not hold counts as not
        solved and is listed. Keys: ``elo``, ``codeelo`` (``evaluator.rating.rate_contests``, with
        the contests ``dropped`` for their size; None where undefined) and ``missing``, the sentence
        that says why there is none.
        """
        found = {each.id: ids for each in self.contests if (ids := _ids(each, problem_ids))}
        used = [contest for contest in self.contests if contest.id in found]
        blank: dict[str, Any] = {"elo": None, "codeelo": None}
        if not used:
            return blank | {"missing": NO_BUNDLE}
        attempts = _attempts(rows, found, samples)
        if attempts is None:
            return blank | {"missing": INCOMPLETE}
        named = self.population or _participants(used)
        return {
            str(mode): {
                **rate_contests(used, attempts, mode=mode, population=named),
                "dropped": _dropped(used, mode),
            }
            for mode in Mode
        } | {"missing": None}


def _attempts(
    rows: Iterable[Mapping[str, Any]], ids: Mapping[str, Mapping[str, str]], samples: int
) -> dict[str, Attempts] | None:
    """Contest → problem index → was sample s accepted; None while a verdict is missing."""
    accepted: dict[str, dict[int, bool]] = defaultdict(dict)
    for row in rows:
        outcome = Outcome(row["outcome"])
        if not outcome.is_error:
            accepted[row["problem_id"]][row["sample"]] = outcome is Outcome.CORRECT
    wanted = {problem_id for each in ids.values() for problem_id in each.values()}
    if any(len(accepted[problem_id]) < samples for problem_id in wanted):
        return None
    return {
        contest: {
            index: [accepted[problem_id][sample] for sample in range(samples)]
            for index, problem_id in each.items()
        }
        for contest, each in ids.items()
    }


def _ids(contest: Contest, problem_ids: Collection[str]) -> dict[str, str]:
    """Problem index → id in the benchmark, of the contest's problems that it holds."""
    if contest.scoring is None:
        return {}
    found = {
        each.index: next((i for i in ids_in(contest, each.index, each.id) if i in problem_ids), "")
        for each in contest.problems
    }
    return {index: problem_id for index, problem_id in found.items() if problem_id}


def _participants(contests: Sequence[Contest]) -> Population:
    names = [contest.name for contest in contests[:_NAMED_CONTESTS]]
    more = len(contests) - len(names)
    told = "; ".join(names) + (f"; and {more} more" if more else "")
    ratings = np.concatenate([contest.standings.ratings for contest in contests])
    return Population.of(f"participants of {told}", ratings)


def _dropped(contests: Sequence[Contest], mode: Mode) -> list[str]:
    """Ids of the contests that the mode leaves out for their size."""
    if mode is Mode.ELO:
        return []
    return [each.id for each in contests if len(each.standings) <= CODEELO_SMALLEST]
