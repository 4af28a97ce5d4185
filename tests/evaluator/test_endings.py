"""Alarms over how completions ended, and the bins of their lengths."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from evaluator.benchmarks.arithmetic import generate
from evaluator.cli import app
from evaluator.diagnostics import Endings, alarms, count_endings, count_lengths, length_edges
from evaluator.records import Outcome

PROTOCOL = {"max_tokens": 4096, "temperature": 0.6}


@given(st.integers(0, 100_000), st.integers(0, 100_000))
def test_every_length_lies_in_one_of_few_bins(a: int, b: int) -> None:
    shortest, longest = sorted((a, b))
    edges = length_edges(shortest, longest)
    assert edges == sorted(set(edges))
    assert edges[0] <= shortest
    assert edges[-1] <= longest
    assert len(edges) <= 19
    if len(edges) > 1:  # neither end is an empty bin
        assert edges[1] > shortest


def test_bins_are_even_over_a_narrow_span_and_double_over_a_wide_one() -> None:
    assert length_edges(26, 34) == list(range(26, 35))
    assert length_edges(100, 700) == [100, 200, 300, 400, 500, 600, 700]
    assert length_edges(100, 32768) == [2**i for i in range(6, 16)]
    assert length_edges(7, 7) == [7]


def test_a_truncation_rate_that_matters_is_said_with_its_remedy() -> None:
    endings = Endings(completions=400, cut=48, truncated=40, cut_at_least_tokens=4096,
                      cut_at_most_tokens=4096)  # fmt: skip
    (alarm,) = alarms(endings, **PROTOCOL)
    assert alarm.grave
    assert alarm.sentence == (
        "12\N{NO-BREAK SPACE}% of completions were truncated at 4,096 tokens: pass@1 is a lower "
        "bound (10\N{NO-BREAK SPACE}% had no answer yet); raise max_tokens."
    )


def test_a_context_that_ends_before_the_limit_is_the_thing_to_raise() -> None:
    endings = Endings(completions=100, cut=5, truncated=5, cut_at_least_tokens=1950,
                      cut_at_most_tokens=2000)  # fmt: skip
    (alarm,) = alarms(endings, context_tokens=2048, **PROTOCOL)
    assert not alarm.grave
    assert "at up to 2,000 tokens" in alarm.sentence
    assert "raise the context" in alarm.sentence
    assert "raise max_tokens" not in alarm.sentence
    (alarm,) = alarms(endings, replayed=True, **PROTOCOL)
    assert "where they were made" in alarm.sentence


def test_cut_completions_that_had_answered_are_no_lower_bound() -> None:
    (alarm,) = alarms(Endings(completions=100, cut=50), **PROTOCOL)
    assert not alarm.grave
    assert "lower bound" not in alarm.sentence
    assert "had given an answer" in alarm.sentence


def test_loops_are_told_apart_from_truncation_and_from_greedy_sampling() -> None:
    endings = Endings(completions=100, looped=20, cut=30, truncated=10)
    cut, loops = alarms(endings, **PROTOCOL)
    assert cut.sentence.startswith("30\N{NO-BREAK SPACE}% of completions were truncated")
    assert loops.sentence.startswith("20\N{NO-BREAK SPACE}% of completions ran in circles")
    assert "temperature" not in loops.sentence
    _, greedy = alarms(endings, max_tokens=4096, temperature=0.0)
    assert "At temperature 0 " in greedy.sentence


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 5000))
def test_an_alarm_is_raised_from_one_percent_on_and_never_below(
    cut: int, looped: int, others: int
) -> None:
    total = cut + looped + others
    endings = Endings(completions=total, cut=cut, truncated=cut, looped=looped)
    found = alarms(endings, **PROTOCOL)
    assert len(found) == sum(total > 0 and 100 * count >= total for count in (cut, looped))
    assert sum(a.grave for a in found) == sum(
        total > 0 and 10 * count >= total for count in (cut, looped)
    )


def test_endings_are_counted_without_errors() -> None:
    rows = [
        {"outcome": Outcome.TRUNCATED, "finish_reason": "length", "completion_tokens": 90},
        {"outcome": Outcome.WRONG, "finish_reason": "length", "completion_tokens": 100},
        {"outcome": Outcome.LOOPED, "finish_reason": "length", "completion_tokens": None},
        {"outcome": Outcome.CORRECT, "finish_reason": "unknown", "completion_tokens": 5},
        {"outcome": Outcome.CORRECT, "finish_reason": "stop", "completion_tokens": 5},
        {"outcome": Outcome.GRADER_ERROR, "finish_reason": "length", "completion_tokens": 7},
        {"outcome": Outcome.ENGINE_ERROR, "finish_reason": "error", "completion_tokens": None},
    ]
    assert count_endings(rows) == Endings(
        completions=5, cut=3, truncated=1, looped=1, unknown=1, cut_at_least_tokens=90,
        cut_at_most_tokens=100,
    )  # fmt: skip


def test_table_and_report_of_the_command_line_raise_the_alarm_and_tell_the_lengths(
    tmp_path: Path,
) -> None:
    problems = list(generate(4, seed=1))
    lines = [
        {
            "problem_id": problem.id, "sample": 0, "finish_reason": "length" if cut else "stop",
            "completion": "I add and" if cut else f"\\boxed{{{problem.answer}}}",
            "completion_tokens": 4096 if cut else 20,
        }
        for cut, problem in zip((True, False, False, False), problems, strict=True)
    ]  # fmt: skip
    files = {"problems.jsonl": [p.to_json() for p in problems], "completions.jsonl": lines}
    for name, rows in files.items():
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "run"
    arguments = [
        "run", "--benchmark", "arithmetic", "--problems", tmp_path / "problems.jsonl", "--engine",
        "replay", "--model", tmp_path / "completions.jsonl", "--protocol", "r1", "--samples", 2,
        "--out", out,
    ]  # fmt: skip
    made = CliRunner().invoke(app, [*map(str, arguments)])
    assert made.exit_code == 0, made.output
    said = " ".join(made.output.split())
    assert "alarm: 25 % of completions were truncated at 4,096 tokens" in said
    assert "alarm: incomplete (4 engine_error)" in said
    for figure in ("p95 │", "max │ 4,096", "median of correct │ 20", "of others │ 4,096"):
        assert figure in said, said
    for suffix in ("html", "json"):
        made = CliRunner().invoke(app, ["report", str(out), "--output", f"{out}/r.{suffix}"])
        assert made.exit_code == 0, made.output
    (alarm,) = json.loads((out / "r.json").read_text())["diagnostics"]["alarms"]
    assert alarm["sentence"].startswith("25\N{NO-BREAK SPACE}% of completions were truncated")
    assert alarm["sentence"] in (out / "r.html").read_text()
    page = (out / "r.html").read_text()
    assert "<h2>Length against correctness</h2>" in page
    assert "4,096</td>" in page


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "problem_id": st.sampled_from("abc"),
            "outcome": st.sampled_from(list(Outcome)),
            "finish_reason": st.sampled_from(["stop", "length"]),
            "completion_tokens": st.none() | st.integers(0, 40_000),
        }
    )
)


@given(ROWS)
def test_every_counted_completion_is_in_the_one_bin_that_spans_it(rows: list[Any]) -> None:
    found = count_lengths(rows)
    scored = [row for row in rows if not row["outcome"].is_error]
    lengths = [r["completion_tokens"] for r in scored if r["completion_tokens"] is not None]
    assert (found.counted, found.uncounted) == (len(lengths), len(scored) - len(lengths))
    for each in found.bins:
        assert each.completions == sum(each.first <= length <= each.last for length in lengths) > 0
    assert sum(each.completions for each in found.bins) == len(lengths)
    assert all(one.last < other.first for one, other in pairwise(found.bins))
