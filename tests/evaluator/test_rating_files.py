"""Bundles, populations and the two commands: whole or refused, in one sentence; real rounds."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.rating import CodeforcesUpdate, places_of
from evaluator import contests
from evaluator.contests import Scoring, read_bundles, read_contest, read_population
from evaluator.errors import InputError
from evaluator.rating import rate, rate_contests

REPOSITORY = Path(__file__).parents[2]
CODE = REPOSITORY.parent / "shared" / "data" / "code"
ROUNDS = ["1305-ozon-2020-div1+2", "1342-edu-86", "1350-641-div2"]


def evaluator(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "evaluator", *map(str, arguments)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "COLUMNS": "100"},
    )  # fmt: skip


def answers(scoring: str = "CF", rated: int = 250) -> tuple[dict[str, Any], dict[str, Any]]:
    """The API's two answers for a contest of ``rated`` and some whom it must leave out."""

    def row(handle: str, points: float, penalty: int, kind: str = "CONTESTANT") -> dict[str, Any]:
        party = {"contestId": 77, "members": [{"handle": handle}], "participantType": kind}
        return {"party": party, "rank": 1, "points": points, "penalty": penalty}

    scale = 100.0 if scoring == "CF" else 0.02
    rows = [
        row(f"h{i}", round(scale * (rated - i)), i if scoring == "ICPC" else 0)
        for i in range(rated)
    ]
    rows += [
        row("guest", 9999.0, 0, "OUT_OF_COMPETITION"),
        row("h3", 9999.0, 0, "PRACTICE"),
        row("unrated", 9999.0, 0),
    ]
    problems = [
        {"contestId": 76 if index == "B" else 77, "index": index, "name": index}
        | ({"points": points} if scoring == "CF" else {})
        for index, points in (("A", 500.0), ("B", 1000.0), ("C", 25000.0))
    ]
    head = {"id": 77, "name": "Round 77 (Div. 2)", "type": scoring, "phase": "FINISHED"}
    standings = {"status": "OK", "result": {"contest": head, "problems": problems, "rows": rows}}
    changes = [
        {"contestId": 77, "handle": f"h{i}", "rank": i, "oldRating": 2200 - 5 * i, "newRating": 0}
        for i in range(rated)
    ]
    return standings, {"status": "OK", "result": changes}


def save(folder: Path, standings: Any, changes: Any) -> tuple[Path, Path]:
    paths = folder / "standings.json", folder / "changes.json.gz"
    paths[0].write_text(json.dumps(standings))
    paths[1].write_bytes(gzip.compress(json.dumps(changes).encode()))
    return paths


def import_contest(folder: Path, standings: Any, changes: Any, *more: object) -> Any:
    one, other = save(folder, standings, changes)
    (folder / "bundles").mkdir(exist_ok=True)
    return evaluator(
        "import-contest", "--standings", one, "--rating-changes", other,
        "--output", folder / "bundles" / "77.json.gz", *more,
    )  # fmt: skip


@pytest.mark.parametrize("scoring", ["CF", "ICPC"])
def test_a_bundle_holds_the_rated_and_rates_samples(tmp_path: Path, scoring: str) -> None:
    tests = tmp_path / "problems.jsonl"
    tests.write_text('{"id": "77/A", "official_tests": [1]}\n\n{"id": "76B"}\n{"id": "1/C"}\n')
    done = import_contest(tmp_path, *answers(scoring), "--problems", tests)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert (shown["participants"], shown["unrated_rows_left_out"]) == (250, 3)
    assert (shown["problems"], shown["problems_with_tests"]) == (3, 2)

    [contest] = read_bundles(tmp_path / "bundles")
    assert contest.scoring is (Scoring.POINTS if scoring == "CF" else Scoring.ICPC)
    assert (contest.id, contest.name) == ("77", "Round 77 (Div. 2)")
    assert contest.standings.ratings.tolist() == [2200 - 5 * i for i in range(250)]
    assert [each.id for each in contest.problems] == ["77/A", "76B", None]
    assert contest.problems[0].problem == {"id": "77/A", "official_tests": [1]}
    text = gzip.decompress((tmp_path / "bundles" / "77.json.gz").read_bytes()).decode()
    assert '"h3"' not in text, "nobody's name is kept"

    attempts = {"77": {"A": [True] * 8, "B": [False, True] * 4, "C": [False] * 8}}
    rating = rate_contests([contest], attempts)
    points, penalty = (1450, 0) if scoring == "CF" else (2, 10)
    expected = rate(contest.standings, points, penalty)
    assert rating["rating@8"]["value"] == pytest.approx(expected.rating)
    assert rating["contests"][0]["unsampled_problems"] == []


def broken(change: str) -> tuple[Any, Any]:
    standings, changes = answers()
    result = standings["result"]
    if change == "failed":
        return {"status": "FAILED", "comment": "contestId: no such contest"}, changes
    if change == "swapped":
        return changes, standings
    if change == "running":
        result["contest"]["phase"] = "CODING"
    if change == "ioi":
        result["contest"]["type"] = "IOI"
    if change == "other":
        changes["result"][5]["contestId"] = 78
    if change == "twice":
        changes["result"].append(changes["result"][0])
    if change == "row twice":
        result["rows"].append(result["rows"][0])
    if change == "part":
        result["rows"] = result["rows"][:100]
    if change == "nobody":
        changes["result"] = []
    if change == "rating":
        changes["result"][3]["oldRating"] = "1500"
    if change == "points":
        result["rows"][2]["points"] = None
    if change == "no points":
        del result["problems"][1]["points"]
    if change == "party":
        result["rows"][0]["party"] = []
    return standings, changes


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("failed", "standings.json: the site answered 'contestId: no such contest'"),
        ("swapped", "standings.json: result is not contest.standings's"),
        ("running", "contest.phase is 'CODING'"),
        ("ioi", "contest.type 'IOI' is not CF or ICPC"),
        ("other", "changes.json.gz: result, row 6: it is of contest 78"),
        ("twice", "result, row 251: 'h0' comes twice"),
        ("row twice", "rows, row 254: 'h0' comes twice"),
        ("part", "150 of 250 rated participants have none"),
        ("nobody", "nobody was rated"),
        ("rating", "result, row 4: oldRating must be a number"),
        ("points", "rows, row 3: points must be a number"),
        ("no points", "problems, row 2: points must be a number"),
        ("party", "rows, row 1: party.members is missing"),
    ],
)
def test_answers_that_do_not_fit_are_refused(tmp_path: Path, change: str, complaint: str) -> None:
    from evaluator.contest_import import make_bundle

    with pytest.raises(InputError) as caught:
        make_bundle(*save(tmp_path, *broken(change)))
    assert complaint in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_a_refused_import_writes_nothing(tmp_path: Path) -> None:
    done = import_contest(tmp_path, *broken("part"))
    assert done.returncode == 2
    assert "save the whole standings" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "bundles").iterdir())
    tests = tmp_path / "problems.jsonl"
    tests.write_text('{"id": "1/A"}\n')
    done = import_contest(tmp_path, *answers(), "--problems", tests)
    assert done.returncode == 2
    assert "holds no problem of contest 77" in done.stderr


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "it is not JSON"),
        ("[1]", "not a JSON object"),
        ("{}", "neither schema nor data"),
        ('{"data": []}', "data: there are no rows"),
        ('{"data": [["a", 1, 2]]}', "data, row 1: give contestant, points, penalty, rating before"),
        ('{"data": [["a", 1, 2, NaN]]}', "data, row 1: rating before nan"),
        ('{"data": [["a", 1, true, 3]]}', "data, row 1: penalty True"),
        ('{"data": [["a", 1e400, 2, 3]]}', "data, row 1: points inf"),
        ('{"schema": "retort/contest/9"}', "schema: 'retort/contest/9' is not known"),
        ('{"schema": "retort/contest/1", "contest": {"id": "1"}}', "contest: give id, name"),
        (
            '{"schema": "retort/contest/1", "contest": {"id": "1", "name": "n", "scoring": "x"}}',
            "contest.scoring: 'x' is not points or icpc",
        ),
    ],
)
def test_malformed_standings_are_one_sentence(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "round.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_contest(path)
    assert str(caught.value).startswith("round.json: ")
    assert complaint in str(caught.value)


@pytest.mark.parametrize("packed", [True, False])
def test_a_bomb_ends_at_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    """What is read of it, and the memory that takes, follow the limit and not the file."""
    monkeypatch.setattr(contests, "MOST_BYTES", 1 << 20)
    path = tmp_path / ("bomb.json.gz" if packed else "bomb.json")
    with gzip.open(path, "wb", 1) if packed else path.open("wb") as file:
        file.write(b"[" + b" " * (64 << 20) + b"1]")
    for read in (read_contest, read_population):
        tracemalloc.start()
        with pytest.raises(InputError, match=r"bomb\.json.*: more than 1 MiB of text"):
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 << 20
    path = tmp_path / "small.json"
    path.write_bytes(b"[" + b" " * ((1 << 20) - 3) + b"1]")  # as much as is taken
    assert len(read_population(path).ratings) == 1


def test_populations_are_lists_or_counts(tmp_path: Path) -> None:
    listed, counted = tmp_path / "a town.json", tmp_path / "b.json.gz"
    listed.write_text("[1500, 800, 1500.5]")
    counted.write_bytes(gzip.compress(b'{"1500": 2, "-3": 1, "9": 0}'))
    assert read_population(listed).name == "a town"
    assert read_population(listed).ratings.tolist() == [800, 1500, 1500.5]
    assert read_population(counted).ratings.tolist() == [-3, 1500, 1500]
    for text in (
        "[]", "{}", "3", '["a"]', '{"x": 1}', '{"1": -1}', '{"1": 1.5}', '{"nan": 1}',
        '{"1": 1000000000000}', "[1, [2]]", "[1, NaN]", '{"1": 0}',
    ):  # fmt: skip
        listed.write_text(text)
        with pytest.raises(InputError, match=r"^a town\.json: "):
            read_population(listed)


def test_rate_prints_place_rating_and_population(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_text(json.dumps({"data": [[f"p{i}", 100 * i, 0, 1000 + i, 0] for i in range(20)]}))
    done = evaluator("rate", "--standings", path, "--points", 1000, "--penalty", 0)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert (shown["place"], shown["clamped"]) == (11, False)
    assert shown["population"] == "participants of small"
    below = sum(1000 + i < shown["rating"] for i in range(20))
    assert shown["percentile"] == 100 * below / 20
    people = tmp_path / "people.json"
    people.write_text("[1, 2, 9000, 9001]")
    named = json.loads(
        evaluator(
            "rate", "--standings", path, "--points", 1000, "--penalty", 0, "--population", people
        ).stdout
    )
    assert (named["percentile"], named["population"]) == (50.0, "people")
    for arguments, complaint in (
        (["--points", "nan"], "points: nan is no number within ±1e9"),
        (["--points", 5, "--mode", "codeelo"], "this one has 20; use mode elo"),
        (["--points", 5, "--population", tmp_path / "none.json"], "none.json: cannot be read"),
    ):
        done = evaluator("rate", "--standings", path, *arguments)
        assert done.returncode == 2, done.stderr
        assert complaint in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ROUNDS)
def test_each_participant_taken_out_of_his_round_has_his_place_again(name: str) -> None:
    """place = 1 + better + tied: of everybody by sorting, of every 97th row by row."""
    standings = read_contest(CODE / f"cf_round_{name}.json.gz").standings
    scores = list(zip(standings.points.tolist(), standings.penalty.tolist(), strict=True))
    places = places_of(standings)
    for row, (points, penalty) in enumerate(scores):
        better, tied = standings.without(row).better_and_tied(points, penalty)
        assert 1 + better + tied == places[row]
    for row in range(0, len(standings), 97):
        points, penalty = scores[row]
        others = scores[:row] + scores[row + 1 :]
        better = sum(p > points or (p == points and q < penalty) for p, q in others)
        tied = sum((p, q) == (points, penalty) for p, q in others)
        found = rate(standings.without(row), points, penalty)
        assert found.place == 1 + better + tied


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ROUNDS)
def test_performances_differ_from_the_files_by_codeforces_own_constant(name: str) -> None:
    """The file's performance is where Codeforces' update is zero; ours is where place = seed.

    Codeforces adds one constant c to every change, (R − rating)/2 with R at the geometric mean of
    place and seed: near the performance the change falls by 1/4 per point, so theirs lies 4c from
    ours. The update computed here gives every published change of the round.
    """
    path = CODE / f"cf_round_{name}.json.gz"
    document = json.loads(gzip.decompress(path.read_bytes()))
    standings = read_contest(path).standings
    update = CodeforcesUpdate.of(standings)
    assert update.changes.tolist() == [row[4] for row in document["data"]]
    perfs = {contestant: float(value) for contestant, value in document["perfs"]}
    theirs = np.array([perfs[row[0]] for row in document["data"]])
    assert np.mean(update.zero == theirs) > 0.98
    places, differences = places_of(standings), []
    for row in range(0, len(standings), 29):
        if 1200 <= standings.ratings[row] <= 2400 and np.isfinite(theirs[row]):
            found = rate(standings.without(row), standings.points[row], standings.penalty[row])
            assert found.place == places[row]
            if not found.clamped:
                differences.append(found.rating - theirs[row])
    assert len(differences) > 100
    assert np.median(differences) == pytest.approx(-4 * update.constant, abs=3)
    assert np.percentile(differences, 95) - np.percentile(differences, 5) < 10


@pytest.mark.shared_data
def test_the_named_population_puts_2029_where_its_authors_did() -> None:
    population = read_population(CODE / "codeelo_sorted_ratings.json.gz")
    assert len(population.ratings) == 717_421
    assert population.percentile(2029) == pytest.approx(98.1, abs=0.05)
