"""The benchmark of programs: read from every form, judged, rated as by hand."""

from __future__ import annotations

import gzip
import itertools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evaluator.benchmarks import codeforces
from evaluator.benchmarks.files import read_problems
from evaluator.errors import InputError
from evaluator.records import problems_hash
from evaluator.sandbox.packing import judge_problem, pack, unpack
from evaluator.sandbox.problems import from_row
from tests.evaluator import programs

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = REPOSITORY.parent / "shared" / "data" / "code"

HUB: dict[str, Any] = {
    "id": "1350/A", "contest_id": "1350", "index": "A", "title": "Squares", "rating": 900,
    "description": "Print the square of $n$.", "input_format": "One number $n$.",
    "output_format": "Its square.", "interaction_format": None, "note": None,
    "examples": [{"input": "7\n", "output": "49\n"}], "time_limit": 1.0, "memory_limit": 256.0,
    "official_tests": [{"input": "7\n", "output": "49\n"}, {"input": "-3\n", "output": "9\n"}],
    "official_tests_complete": True, "input_mode": "stdio", "generated_checker": None,
    "executable": True,
}  # fmt: skip
HUB_FILE: dict[str, Any] = {
    **HUB, "id": "2/B", "title": "In files", "input_mode": "file", "rating": None,
    "generated_checker": "import sys\nprint(1)\n", "memory_limit": 64.0, "note": "Mind the files.",
}  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_every_file_of_the_hubs_form_gives_the_same_problems(tmp_path: Path) -> None:
    rows = [HUB, HUB_FILE]
    sets = [
        read_problems(path, "codeforces")
        for path in (
            write(tmp_path / "a.jsonl", rows),
            write(tmp_path / "a.jsonl.gz", rows),
            write_parquet(tmp_path / "a.parquet", rows),
        )
    ]
    assert sets[0] == sets[1] == sets[2]
    again = write(tmp_path / "own.jsonl", [problem.to_json() for problem in sets[0]])
    assert read_problems(again, "codeforces") == sets[0]
    first, second = (judge_problem(problem) for problem in sets[0])
    assert [(test.input, test.answer) for test in first.tests] == [
        (b"7\n", b"49\n"),
        (b"-3\n", b"9\n"),
    ]
    assert (first.cpu_seconds, first.memory_bytes, first.file_mode) == (1.0, 256 << 20, False)
    assert second.file_mode
    assert second.checker is not None
    assert second.checker.convention == "hub"
    assert (sets[0][0].level, sets[0][1].level) == ("900", None)


def test_the_model_reads_statement_limits_formats_and_examples() -> None:
    text = codeforces.problem(HUB_FILE).problem
    for part in (
        "In files", "1 s", "64 MiB", "input.txt", "Print the square", "One number", "Its square.",
        "7\n", "49\n", "Mind the files.",
    ):  # fmt: skip
        assert part in text
    assert "-3" not in text, "hidden tests stay hidden"
    assert codeforces.PROMPT.count("{problem}") == 1


@pytest.mark.parametrize(
    "change",
    [
        {"official_tests": HUB["official_tests"][:1]},
        {"time_limit": 2.0},
        {"memory_limit": 64.0},
        {"input_mode": "file"},
        {"generated_checker": "print(1)"},
        {"description": "Print the cube."},
    ],
)
def test_the_content_hash_changes_with_all_that_a_verdict_depends_on(
    change: Mapping[str, Any],
) -> None:
    before, after = (codeforces.problem(row) for row in (HUB, {**HUB, **change}))
    assert before.content_hash != after.content_hash
    assert codeforces.problem({**HUB, "id": "9/Z"}).content_hash == before.content_hash


@pytest.mark.shared_data
def test_packing_loses_nothing_and_the_shared_problems_are_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        icpc = read_problems(DATA / "icpc_problems.jsonl.gz", "codeforces")
    assert "1 interactive" in caplog.text
    assert "1 with a custom checker" in caplog.text
    assert len(icpc) == 6
    columns = read_problems(DATA / "code_contests_test165.jsonl.gz", "codeforces")
    assert len(columns) == 165
    assert sum(len(judge_problem(problem).tests) for problem in columns) == 1837
    rows = [
        json.loads(line)
        for name in ("icpc_problems", "code_contests_test165")
        for line in gzip.decompress((DATA / f"{name}.jsonl.gz").read_bytes()).splitlines()
    ]
    for row in rows:
        if codeforces.left_out(row) is None:
            assert unpack(pack(from_row(row))) == from_row(row)
    assert problems_hash(icpc) != problems_hash(icpc[1:])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"description": " "}, "description"),
        ({"official_tests": [{"input": "1"}]}, "official_tests"),
        ({"official_tests": [{"input": "\ud800", "output": "1"}]}, "half a character"),
        ({"time_limit": -1}, "time_limit"),
        ({"examples": [{"input": "1"}]}, "examples"),
        ({"title": 5}, "title"),
        ({"input_mode": "socket"}, "input_mode"),
        ({"id": None}, "id"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_with_line_and_field(
    tmp_path: Path, change: Mapping[str, Any], named: str
) -> None:
    path = write(tmp_path / "p.jsonl", [HUB, {**HUB_FILE, **change}])
    with pytest.raises(InputError, match=f"line 2: .*{named}"):
        read_problems(path, "codeforces")


def test_rows_that_nobody_can_judge_are_counted_and_never_the_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = [
        {**HUB, "id": "1/I", "interaction_format": "Ask and flush."},
        {**HUB, "id": "1/T", "official_tests": []},
        {**HUB, "id": "1/C", "checker": "custom"},
        {**HUB, "id": "1/S", "description": None},
    ]
    with caplog.at_level(logging.WARNING):
        assert len(read_problems(write(tmp_path / "p.jsonl", [HUB, *odd]), "codeforces")) == 1
    for reason in ("interactive", "custom checker", "without tests", "without a statement"):
        assert reason in caplog.text
    with pytest.raises(InputError, match=r"holds no problems .*1 interactive"):
        read_problems(write(tmp_path / "q.jsonl", odd), "codeforces")


def test_a_row_of_ours_whose_tests_were_changed_is_refused(tmp_path: Path) -> None:
    row, other = (codeforces.problem(each).to_json() for each in (HUB, HUB_FILE))
    for extra, named in ((other["extra"], "answer"), ({"judge": "no"}, "extra.judge")):
        with pytest.raises(InputError, match=named):
            read_problems(write(tmp_path / "p.jsonl", [{**row, "extra": extra}]), "codeforces")


# --- a run from the command line


def evaluator(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "evaluator", *map(str, arguments)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "COLUMNS": "120", **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contests")
    (folder / "bundles").mkdir()
    for name in ("9001", "9002"):
        programs.write_json(folder / "bundles" / f"{name}.json", programs.bundle(name))
    programs.write_lines(folder / "answers.jsonl", programs.completions())
    programs.write_lines(
        folder / "problems.jsonl", [programs.row(each) for each in programs.SAMPLES]
    )
    return folder


@pytest.fixture(scope="module")
def run(files: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A whole run's folder and what it printed; its problems are those of the bundles."""
    out = tmp_path_factory.mktemp("runs") / "run"
    done = evaluator(
        "run", "--benchmark", "codeforces", "--contests", files / "bundles", "--engine", "replay",
        "--model", files / "answers.jsonl", "--samples", 8, "--out", out, "--jobs", 2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_a_run_counts_outcomes_and_verdicts_and_keeps_the_failing_test(
    run: tuple[Path, str],
) -> None:
    metrics = json.loads((run[0] / "metrics.json").read_text())
    kinds = [kind for each in programs.SAMPLES.values() for kind in each]
    right = kinds.count(programs.RIGHT)
    assert metrics["outcomes"] == {
        "engine_error": 0, "grader_error": 0, "correct": right, "looped": 0,
        "wrong": kinds.count(programs.WRONG) + 1, "truncated": 1, "no_answer": 1,
    }  # fmt: skip
    assert {name: count for name, count in metrics["verdicts"].items() if count} == {
        "AC": right, "WA": kinds.count(programs.WRONG), "TLE": 1,
    }  # fmt: skip
    assert metrics["pass@1"]["value"] == pytest.approx(right / len(kinds))
    assert set(metrics["cons@k"].values()) == {None}
    rows = [json.loads(line) for line in (run[0] / "grades.jsonl").read_text().splitlines()]
    by_key = {(row["problem_id"], row["sample"]): row for row in rows}
    slow = by_key["9002/B", 0]["judged"]
    assert (slow["verdict"], slow["passed"], slow["tests"]) == ("TLE", 0, 3)
    assert slow["test"]["name"] == "1"
    assert slow["test"]["cpu_seconds"] >= 1.0
    assert slow["test"]["memory_bytes"] > 1 << 20
    assert by_key["9001/A", 0]["judged"]["passed"] == 3
    assert by_key["9001/B", 1].get("judged") is None, "there is no program to judge"


def test_the_rating_is_the_one_counted_by_hand(run: tuple[Path, str]) -> None:
    rating = json.loads((run[0] / "metrics.json").read_text())["rating"]
    assert rating["missing"] is None
    bundles = [programs.bundle(name) for name in ("9001", "9002")]
    for name, count in (("rating@1", programs.rating_at_1), ("rating@8", programs.rating_at_8)):
        by_hand = [count(each) for each in bundles]
        found = rating["elo"][name]
        assert [each[name] for each in rating["elo"]["contests"]] == pytest.approx(by_hand, abs=0.1)
        assert found["value"] == pytest.approx(sum(by_hand) / 2, abs=0.1)
        # Student's t with one degree of freedom: 12.706; the standard error of two is half |a − b|.
        reach = 12.7062 * abs(by_hand[0] - by_hand[1]) / 2
        assert found["high"] - found["value"] == pytest.approx(reach, rel=1e-2, abs=1)
        people = [rating for each in bundles for _, _, rating in each["standings"]]
        below = sum(each < found["value"] for each in people)
        assert found["percentile"] == pytest.approx(100 * below / len(people), abs=0.3)
    assert rating["elo"]["population"] == {
        "name": "participants of Round 9001; Round 9002", "size": 400,
    }  # fmt: skip
    assert 0 < rating["elo"]["rating@1"]["clamped"] < 1, "a sample of 9002 solves nothing"
    assert rating["codeelo"]["dropped"] == ["9001"], "150 participants are too few for CodeElo"
    assert [each["id"] for each in rating["codeelo"]["contests"]] == ["9002"]


def test_table_and_report_show_rating_population_and_verdicts(
    run: tuple[Path, str], tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    assert evaluator("report", run[0], "--output", page).returncode == 0
    for shown in (run[1], page.read_text()):
        for part in (
            "rating@1", "rating@8", "CodeElo", "participants of Round 9001; Round 9002",
            "AC", "time limit exceeded", "no program", "clamped",
        ):  # fmt: skip
            assert part in shown
        assert "cons@8 " not in shown
    assert "TLE, 0 of 3 tests passed" in page.read_text()


def test_without_bundles_only_the_solve_rate_and_the_reason(files: Path, tmp_path: Path) -> None:
    answers = [each for each in programs.completions() if each["problem_id"] == "9001/A"]
    done = evaluator(
        "score", "--benchmark", "codeforces", "--problems", files / "problems.jsonl",
        "--completions", programs.write_lines(tmp_path / "a.jsonl", answers),
        "--output", tmp_path / "m.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics["rating"]["elo"] is None
    assert "no contest bundle" in metrics["rating"]["missing"]
    assert "no contest bundle" in done.stdout
    assert not metrics["complete"], "three problems have no completion"


def test_a_named_population_and_samples_without_a_verdict(files: Path, tmp_path: Path) -> None:
    people = programs.write_json(tmp_path / "people.json", {"1000": 3, "2000": 1})
    answers = programs.completions()
    for rows, complete in ((answers, True), (answers[:-1], False)):
        done = evaluator(
            "score", "--benchmark", "codeforces", "--contests", files / "bundles" / "9002.json",
            "--completions", programs.write_lines(
                tmp_path / "a.jsonl", [row for row in rows if row["problem_id"][:4] == "9002"]
            ),
            "--population", people, "--output", tmp_path / "m.json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        rating = json.loads((tmp_path / "m.json").read_text())["rating"]
        if complete:
            assert rating["elo"]["population"] == {"name": "people", "size": 4}
            assert rating["elo"]["rating@1"]["low"] is None, "one contest has no interval"
        else:
            assert rating["elo"] is None
            assert "no verdict" in rating["missing"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--contests", "bundles/9001.json", "--contests", "bundles"], "9001 comes twice"),
        (["--population", "bundles/9001.json"], "population"),
        (["--benchmark", "arithmetic", "--contests", "bundles"], "contests"),
        (["--contests", "standings.json"], "standings only"),
        (["--contests", "absent.json"], "absent.json"),
    ],
)
def test_what_cannot_rate_is_refused_before_anything_is_made(
    files: Path, tmp_path: Path, arguments: list[str], named: str
) -> None:
    programs.write_json(files / "standings.json", {"data": [["1", 500, 0, 1500, 10]]})
    given = [files / each if ".json" in each or each == "bundles" else each for each in arguments]
    done = evaluator(
        "run", "--benchmark", "codeforces", "--engine", "replay", "--model",
        files / "answers.jsonl", "--out", tmp_path / "run", *given,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert named in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_without_a_sandbox_a_run_is_refused_before_anything_is_drawn(
    files: Path, tmp_path: Path
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    arguments = (
        "run", "--benchmark", "codeforces", "--contests", files / "bundles", "--engine", "replay",
        "--model", files / "answers.jsonl", "--samples", 8, "--out", tmp_path / "run",
    )  # fmt: skip
    done = evaluator(*arguments, PATH=str(tools))
    assert done.returncode == 1
    assert "bubblewrap" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_programs_that_ran_without_isolation_are_told_beside_the_score(
    files: Path, tmp_path: Path
) -> None:
    answers = [row for row in programs.completions() if row["problem_id"] == "9001/A"][:1]
    done = evaluator(
        "score", "--benchmark", "codeforces", "--problems",
        programs.write_lines(tmp_path / "p.jsonl", [programs.row("9001/A")]), "--completions",
        programs.write_lines(tmp_path / "a.jsonl", answers), "--output", tmp_path / "m.json",
        RETORT_UNSAFE_SANDBOX="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics["isolation"] == ["none (RETORT_UNSAFE_SANDBOX=1)"]
    assert metrics["verdicts"]["AC"] == 1
    assert "without isolation" in " ".join(done.stdout.split())


# --- real problems, real rounds

GOLDEN = REPOSITORY / "tests" / "golden" / "programs"
# (round, scoring) → index → problem, points, its samples in order.
REAL: dict[tuple[str, str], dict[str, tuple[str, float, tuple[str, ...]]]] = {
    ("1350-641-div2", "points"): {
        "A": ("problemtools/oddecho", 500, ("wa_even.py", "ac_slice.py")),
        "B": ("kth2014/numbertree", 1000, ("re_no_path.py", "ac_walk.cpp")),
        "C": ("cc-test-50", 1500, ("wa_independent.py", "wa_independent.py")),
    },
    ("1342-edu-86", "icpc"): {
        "A": ("problemtools/hello", 1, ("ac_plain.py", "mle_refused.cpp")),
        "B": ("cc-test-140", 1, ("wa_double_count.py", "ac_roots.py")),
    },
}


@pytest.mark.shared_data
def test_real_problems_in_real_rounds_rate_as_by_hand(tmp_path: Path) -> None:
    published = {
        row["id"]: row
        for name in ("icpc_problems", "code_contests_test165")
        for line in gzip.decompress((DATA / f"{name}.jsonl.gz").read_bytes()).splitlines()
        if (row := json.loads(line))
    }
    bundles, answers, expected = [], [], []
    for (name, scoring), problems in REAL.items():
        [path] = DATA.glob(f"cf_round_{name}.json.gz")
        people = [row[1:4] for row in json.loads(gzip.decompress(path.read_bytes()))["data"]]
        bundles.append({
            "schema": "retort/contest/1",
            "contest": {"id": name, "name": name, "scoring": scoring},
            "standings": people,
            "problems": [
                {"index": index, "points": points, "problem": published[problem_id]}
                for index, (problem_id, points, _) in problems.items()
            ],
        })  # fmt: skip
        for problem_id, _, files in problems.values():
            folder = GOLDEN / problem_id.replace("/", ".", 1)
            for sample, file in enumerate(files):
                tag = "cpp" if file.endswith(".cpp") else "python"
                text = f"```{tag}\n{(folder / file).read_text()}\n```"
                answers.append({"problem_id": problem_id, "sample": sample, "completion": text})
        expected.append(_rating_at_1(bundles[-1], problems))
    arguments = []
    for bundle in bundles:
        path = tmp_path / f"{bundle['contest']['id']}.json"
        arguments += ["--contests", programs.write_json(path, bundle)]
    done = evaluator(
        "score", "--benchmark", "codeforces", *arguments, "--completions",
        programs.write_lines(tmp_path / "a.jsonl", answers), "--output", tmp_path / "m.json",
        "--population", DATA / "codeelo_sorted_ratings.json.gz",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert {name: count for name, count in metrics["verdicts"].items() if count} == {
        "AC": 4, "WA": 4, "RE": 1, "MLE": 1,
    }  # fmt: skip
    elo = metrics["rating"]["elo"]
    assert [each["rating@1"] for each in elo["contests"]] == pytest.approx(expected, abs=0.1)
    assert elo["rating@1"]["value"] == pytest.approx(sum(expected) / 2, abs=0.1)
    assert elo["population"] == {"name": "codeelo_sorted_ratings", "size": 717421}
    assert elo["rating@8"] is None, "C has two samples, none of them accepted"
    assert "rating@8 is blank" in " ".join(done.stdout.split())


def _rating_at_1(
    bundle: Mapping[str, Any], problems: Mapping[str, tuple[str, float, tuple[str, ...]]]
) -> float:
    """The mean over every choice of one sample each; a file's name says whether it is right."""
    scores = [
        sum(
            points
            for (_, points, _), file in zip(problems.values(), files, strict=True)
            if file.startswith("ac_")
        )
        for files in itertools.product(*(samples for _, _, samples in problems.values()))
    ]
    by_score = {score: programs.performance(dict(bundle), score, 0) for score in set(scores)}
    return sum(by_score[score] for score in scores) / len(scores)
