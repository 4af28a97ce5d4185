"""The benchmark of programs: read from every form, judged, rated as by hand."""

from __future__ import annotations

import gzip
import json
import logging
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

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "code"

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
    ]
    with caplog.at_level(logging.WARNING):
        assert len(read_problems(write(tmp_path / "p.jsonl", [HUB, *odd]), "codeforces")) == 1
    assert caplog.text.count("1 ") >= 3
    with pytest.raises(InputError, match=r"holds no problems .*1 interactive"):
        read_problems(write(tmp_path / "q.jsonl", odd), "codeforces")


def test_a_row_of_ours_whose_tests_were_changed_is_refused(tmp_path: Path) -> None:
    row, other = (codeforces.problem(each).to_json() for each in (HUB, HUB_FILE))
    for extra, named in ((other["extra"], "answer"), ({"judge": "no"}, "extra.judge")):
        with pytest.raises(InputError, match=named):
            read_problems(write(tmp_path / "p.jsonl", [{**row, "extra": extra}]), "codeforces")
