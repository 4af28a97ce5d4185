"""The Codeforces rating of a run: its graded samples, set against the contests they come from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from evaluator.benchmarks.codeforces import ids_in
from evaluator.contests import Contest, Population
from evaluator.errors import InputError
from evaluator.rating import CODEELO_SMALLEST, Attempts, Mode, rate_contests
from evaluator.records import Outcome

NO_BUNDLE = (
    "There is no contest bundle of these problems, so that nobody's place among people is known: "
    "only the share of problems solved."
)
INCOMPLETE = "Some samples have no verdict yet, so that there is no rating."
_NAMED_CONTESTS = 3


def rate_run(
    rows: Iterable[Mapping[str, Any]],
    *,
    problem_ids: Collection[str],
    samples: int,
    contests: Sequence[Contest],
    population: Population | None = None,
) -> dict[str, Any]:
    """Both modes' ratings of graded ``rows`` ``{problem_id, sample, outcome}``, as plain JSON.

    ``samples`` is the n asked for of every problem of ``problem_ids``. Contests count of which the
    benchmark holds a problem; a problem of theirs that it does not hold counts as not solved and is
    listed. Without a ``population`` it is the participants of those contests, and is called so.
    Keys: ``elo``, ``codeelo`` (``evaluator.rating.rate_contests``; None where undefined) and
    ``missing``, the sentence that says why there is none. Raises InputError for a contest that
    comes twice.
    """
    check_distinct(contests)
    found = {each.id: ids for each in contests if (ids := _ids(each, problem_ids))}
    used = [contest for contest in contests if contest.id in found]
    blank: dict[str, Any] = {"elo": None, "codeelo": None}
    if not used:
        return blank | {"missing": NO_BUNDLE}
    accepted: dict[str, dict[int, bool]] = defaultdict(dict)
    for row in rows:
        outcome = Outcome(row["outcome"])
        if not outcome.is_error:
            accepted[row["problem_id"]][row["sample"]] = outcome is Outcome.CORRECT
    wanted = {problem_id for ids in found.values() for problem_id in ids.values()}
    if any(len(accepted[problem_id]) < samples for problem_id in wanted):
        return blank | {"missing": INCOMPLETE}
    attempts: dict[str, Attempts] = {
        contest: {
            index: [accepted[problem_id][sample] for sample in range(samples)]
            for index, problem_id in ids.items()
        }
        for contest, ids in found.items()
    }
    named = population or _participants(used)
    return {
        str(mode): {
            **rate_contests(used, attempts, mode=mode, population=named),
            "dropped": _dropped(used, mode),
        }
        for mode in Mode
    } | {"missing": None}


def check_distinct(contests: Sequence[Contest]) -> None:
    """Raise InputError where a contest comes twice: it would count twice."""
    seen: set[str] = set()
    for contest in contests:
        if contest.id in seen:
            raise InputError(f"contests: {contest.id} comes twice; leave one bundle of it out.")
        seen.add(contest.id)


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
