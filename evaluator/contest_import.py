"""Contest bundles from the official API's own answers, saved as files by the user.

``contest.standings`` has the rows (party, points, penalty) and problems, ``contest.ratingChanges``
the ratings before and after (https://codeforces.com/apiHelp/objects). They are joined by handle:
who has no rating change was not rated and is left out. Handles are not kept.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluator.contests import (
    SUFFIXES,
    Contest,
    ContestProblem,
    Scoring,
    Standings,
    contest_problem,
    is_number,
    read_json,
)
from evaluator.errors import InputError

SCORING = {
    "CF": Scoring.POINTS,
    "ICPC": Scoring.ICPC,
}  # the site's contest types; IOI has no rule here
MISSING_ALLOWED = 0.01  # of the rated participants without a row (accounts renamed since)


@dataclass(frozen=True, slots=True)
class Import:
    """A bundle, and how the two answers fitted together (participants, each)."""

    contest: Contest
    unrated: int  # rows of the standings that had no rating change
    missing: int  # rating changes that had no row


def check_name(output: Path) -> bool:
    """Whether a bundle at ``output`` is gzipped; raises InputError for another ending."""
    if not output.name.endswith(SUFFIXES):
        raise InputError(f"output: {output.name} must end in .json or .json.gz.")
    return output.name.endswith(".gz")


def encode(contest: Contest, zipped: bool) -> bytes:
    """A bundle's bytes: the same for the same contest."""
    text = json.dumps(contest.to_json(), ensure_ascii=True, separators=(",", ":")) + "\n"
    return gzip.compress(text.encode(), mtime=0) if zipped else text.encode()


def make_bundle(standings: Path, rating_changes: Path, problems: Path | None = None) -> Import:
    """Join the two answers, and the tests of ``problems`` (JSONL[.gz]) where given.

    Raises InputError, naming file and field, for answers that say FAILED, belong to two contests,
    are of a contest that is not finished or of a type without a ranking rule here, and where the
    standings were saved in part (more than 1 % of the rated participants have no row).
    """
    answer = _result(standings, "contest.standings", dict)
    changes = _result(rating_changes, "contest.ratingChanges", list)
    try:
        head, scoring = _head(answer)
    except InputError as error:
        raise InputError(f"{standings.name}: {error}") from None
    try:
        before = _ratings_before(changes, head["id"])
    except InputError as error:
        raise InputError(f"{rating_changes.name}: {error}") from None
    try:
        rows, unrated = _rated_rows(answer, before)
        if len(before) - len(rows) > MISSING_ALLOWED * len(before):
            raise InputError(
                f"rows: {len(before) - len(rows)} of {len(before)} rated participants have none; "
                "save the whole standings, without from and count."
            )
        contest = Contest(
            id=str(head["id"]),
            name=str(head.get("name") or head["id"]),
            standings=Standings(*np.array(rows, dtype=float).T.copy()),
            scoring=scoring,
            problems=_problems(answer, head["id"], scoring, _tests(problems)),
        )
    except InputError as error:
        raise InputError(f"{standings.name}: {error}") from None
    if problems is not None and not any(each.problem for each in contest.problems):
        raise InputError(
            f"{problems.name}: it holds no problem of contest {contest.id}; "
            f"ids must look like {contest.id}/A or {contest.id}A."
        )
    return Import(contest, unrated=unrated, missing=len(before) - len(rows))


def _result(path: Path, method: str, kind: type) -> Any:
    """The answer's ``result``, which must be of ``kind``."""
    document = read_json(path)
    if not isinstance(document, dict) or "status" not in document:
        raise InputError(f"{path.name}: it is no answer of {method}; save the whole answer.")
    if document["status"] != "OK":
        comment = str(document.get("comment") or document["status"])[:100]
        raise InputError(f"{path.name}: the site answered {comment!r}; ask it again and save that.")
    if not isinstance(document.get("result"), kind):
        raise InputError(f"{path.name}: result is not {method}'s; save that method's answer.")
    return document["result"]


def _head(answer: Mapping[str, Any]) -> tuple[Mapping[str, Any], Scoring]:
    head = answer.get("contest")
    if not isinstance(head, dict) or not isinstance(head.get("id"), int):
        raise InputError("contest.id is missing; save the whole answer.")
    if head.get("phase", "FINISHED") != "FINISHED":
        raise InputError(
            f"contest.phase is {head['phase']!r}; save it once the contest is finished."
        )
    if head.get("type") not in SCORING:
        raise InputError(f"contest.type {head.get('type')!r} is not {' or '.join(SCORING)}.")
    return head, SCORING[head["type"]]


def _ratings_before(changes: list[Any], contest: int) -> dict[str, float]:
    """Handle → rating before the contest."""
    before: dict[str, float] = {}
    for number, change in enumerate(changes, start=1):
        where = f"result, row {number}"
        if not isinstance(change, dict) or not isinstance(change.get("handle"), str):
            raise InputError(f"{where}: handle is missing; save the whole answer.")
        if change.get("contestId", contest) != contest:
            raise InputError(
                f"{where}: it is of contest {change['contestId']}, the standings are of {contest}; "
                "give both answers of one contest."
            )
        if not is_number(change.get("oldRating")):
            raise InputError(f"{where}: oldRating must be a number; save the whole answer.")
        if change["handle"] in before:
            raise InputError(f"{where}: {change['handle']!r} comes twice; leave one of them out.")
        before[change["handle"]] = float(change["oldRating"])
    if not before:
        raise InputError("result: nobody was rated in this contest; choose a rated one.")
    return before


def _rated_rows(
    answer: Mapping[str, Any], before: Mapping[str, float]
) -> tuple[list[tuple[float, float, float]], int]:
    """(points, penalty, rating before) of every rated participant; how many others there were."""
    given = answer.get("rows")
    if not isinstance(given, list):
        raise InputError("rows is missing; save the whole answer.")
    rows: dict[str, tuple[float, float, float]] = {}
    others = 0
    for number, row in enumerate(given, start=1):
        where = f"rows, row {number}"
        party = row.get("party") if isinstance(row, dict) else None
        members = party.get("members") if isinstance(party, dict) else None
        if not isinstance(members, list) or not all(
            isinstance(m, dict) and isinstance(m.get("handle"), str) for m in members
        ):
            raise InputError(f"{where}: party.members is missing; save the whole answer.")
        assert isinstance(party, dict)
        handles = [m["handle"] for m in members if m["handle"] in before]
        # The same person may have practised afterwards: only the rated participation counts.
        if party.get("participantType", "CONTESTANT") != "CONTESTANT" or not handles:
            others += 1
            continue
        for cell in ("points", "penalty"):
            if not is_number(row.get(cell)):
                raise InputError(f"{where}: {cell} must be a number; save the whole answer.")
        for handle in handles:
            if handle in rows:
                raise InputError(f"{where}: {handle!r} comes twice; leave one of them out.")
            rows[handle] = (float(row["points"]), float(row["penalty"]), before[handle])
    return list(rows.values()), others


def _problems(
    answer: Mapping[str, Any], contest: int, scoring: Scoring, tests: Mapping[str, Any]
) -> tuple[ContestProblem, ...]:
    given = answer.get("problems")
    if not isinstance(given, list) or not given:
        raise InputError("problems is missing; save the whole answer.")
    made: dict[str, ContestProblem] = {}
    for number, row in enumerate(given, start=1):
        index = row.get("index") if isinstance(row, dict) else None
        if index in made:
            raise InputError(f"problems, row {number}: index {index!r} comes twice.")
        # A round of two divisions shares problems, and their ids are the other division's.
        ids = (f"{row.get('contestId', contest)}", f"{contest}") if isinstance(row, dict) else ()
        found = [tests[key] for each in ids for key in _keys(each, index) if key in tests]
        plain = contest_problem(row, scoring, number)
        made[plain.index] = ContestProblem(plain.index, plain.points, found[0] if found else None)
    return tuple(made.values())


def _keys(contest: str, index: Any) -> tuple[str, str]:
    return f"{contest}/{index}", f"{contest}{index}"


def _tests(path: Path | None) -> dict[str, dict[str, Any]]:
    """Problem id → row of a JSONL[.gz] file that the judge reads."""
    if path is None:
        return {}
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.name.endswith(".gz") else data).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path.name}: cannot be read ({error}); check the file.") from None
    found: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise InputError(
                f"{path.name}, line {number}: it is no object with an id; give problems as JSONL."
            )
        found[row["id"]] = row
    return found
