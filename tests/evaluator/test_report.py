"""A report opens alone, shows what was measured, and lets nothing hostile through."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from evaluator import metrics, report
from evaluator.benchmarks.arithmetic import generate
from evaluator.protocol import preset
from evaluator.records import Outcome

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>'\"&\x00\x1b[31m\u202e\ud800"


def data(*, errors: int = 0) -> dict[str, Any]:
    problems = generate(10, seed=1)
    outcomes = [Outcome.CORRECT, Outcome.WRONG, Outcome.CORRECT, Outcome.TRUNCATED]
    rows = [
        {
            "problem_id": problem.id,
            "sample": sample,
            "outcome": str(outcomes[(number + sample) % 4]),
            "answer": None if (number + sample) % 4 == 3 else str(number),
            "completion_tokens": 10 + sample,
        }
        for number, problem in enumerate(problems)
        for sample in range(4)
    ]
    for row in rows[:errors]:
        row["outcome"] = str(Outcome.ENGINE_ERROR)
    measured = metrics.aggregate(
        problems, rows, benchmark="arithmetic", grader="integer/1", samples=4,
        measurement_hash="a" * 64, run_fingerprint="b" * 64,
        equal=lambda pairs: [first == second for first, second in pairs],
    )  # fmt: skip
    return {
        "title": "Arithmetic: student",
        "checkpoint": "student",
        "benchmark": "Arithmetic",
        "protocol": preset("quick").model_dump(mode="json"),
        "measurement_hash": "a" * 64,
        "run_fingerprint": "b" * 64,
        "engine": {"name": "transformers", "context_tokens": 512, "versions": {"torch": "2.13"}},
        "metrics": measured,
        "rendered_prompt": "<user>1+1",
        "samples": [
            {"problem_id": "p", "problem": "1+1", "gold": "2", "sample": 0, "outcome": "correct",
             "answer": "2", "text": "text"},
        ],
        "generated_at": "2026-01-02 03:04 UTC",
        "version": "1.2.3",
    }  # fmt: skip


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_report_shows_scores_outcomes_and_how_they_were_measured() -> None:
    content = data()
    page = Page(report.html(content))
    first = content["metrics"]["pass@1"]
    assert "pass@1[avg-of-4]" in page.text
    assert f"{100 * first['value']:.1f} %" in page.text
    assert f"{100 * first['low']:.1f} % – {100 * first['high']:.1f} %" in page.text
    for outcome, count in content["metrics"]["outcomes"].items():
        assert f"{outcome}{count}" in page.text.replace("\n", "")
    assert "sum40" in page.text.replace("\n", "")
    for shown in ("a" * 64, "b" * 64, "2.13", "student", "<user>1+1", "03:04 UTC", "1.2.3"):
        assert shown in page.text
    assert "clamped to the context of 512" in " ".join(page.text.split())
    assert "polyline" in page.tags


def test_a_report_needs_no_network_and_no_script() -> None:
    page = Page(report.html(data()))
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in ("src", "href") or name[:2] == "on"]
    assert len(report.html(data())) < 100_000


@pytest.mark.parametrize(
    "field",
    ["title", "checkpoint", "benchmark", "rendered_prompt", "generated_at", "version"]
    + [f"samples.{name}" for name in ("problem_id", "problem", "gold", "answer", "text")]
    + ["engine.name", "protocol.prompt", "metrics.by"],
)
def test_hostile_text_is_shown_and_does_nothing(field: str) -> None:
    clean, content = data(), data()
    target, _, name = field.partition(".")
    if not name:
        content[target] = HOSTILE
    elif target == "samples":
        content["samples"][0][name] = HOSTILE
    elif target == "metrics":
        group = {"problems": 1, "value": 1.0, "low": 0.5, "high": 1.0}
        clean["metrics"]["by"]["subject"] = {"Algebra": group}
        content["metrics"]["by"]["subject"] = {HOSTILE: group}
    else:
        content[target][name] = HOSTILE
        clean[target][name] = "plain"
    source = report.html(content)
    page = Page(source)
    assert sorted(page.tags) == sorted(Page(report.html(clean)).tags)
    assert "<script>alert(1)</script>" in page.text
    assert "\x00" not in source
    assert "\x1b" not in source
    source.encode()


def test_an_incomplete_evaluation_is_shown_with_bounds_and_without_a_score() -> None:
    content = data(errors=3)
    page = Page(report.html(content))
    assert "incomplete" in page.text
    bounds = content["metrics"]["bounds"]
    assert f"bounds {100 * bounds['low']:.1f} % – {100 * bounds['high']:.1f} %" in page.text
    assert "polyline" not in page.tags


def test_a_long_text_loses_its_middle_and_says_so() -> None:
    content = data()
    content["samples"][0]["text"] = "start " + "x" * 100_000 + " end"
    text = Page(report.html(content)).text
    assert "characters left out" in text
    assert "start xxx" in text
    assert "xxx end" in text
    assert len(text) < 50_000


def test_the_json_form_holds_everything_and_changes_nothing() -> None:
    content = data()
    before = copy.deepcopy(content)
    made = report.as_json(content)
    assert content == before
    assert {name: made[name] for name in content} == content
    assert made["schema"] == "retort/report/1"
    json.dumps(made, allow_nan=False)


@pytest.mark.parametrize("module", ["report", "runner", "stages", "cli", "local", "engines"])
def test_nothing_heavy_is_imported_before_it_is_needed(module: str) -> None:
    code = (
        f"import sys, evaluator.{module}; heavy = {{'torch', 'transformers', 'vllm', 'sympy', "
        "'django'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    ).replace("}}", "}")
    subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True, timeout=60
    )
