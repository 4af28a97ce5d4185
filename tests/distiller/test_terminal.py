"""What recipes, checkpoints and models hold is shown on a terminal, and never steers it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rich.console import Console

from distiller.checks import Check, Level
from distiller.commands import ablate, filtering, preflight
from distiller.preflight import Report
from evaluator.terminal import json_line

STEERING = "fine\x1b[2J\x9b1A\nerrors: none\r\u202e[red]"
REPORT = Report(
    checks=[Check("template", Level.WARNING, STEERING)],
    example=[{"text": STEERING, "supervised": True}, {"text": "masked\n", "supervised": False}],
)


def assert_still(shown: str) -> None:
    """Printable lines only, with the markup as it was written."""
    assert all(line.isprintable() for line in shown.split("\n")), shown
    assert "[red]" in shown
    assert r"\x1b[2J" in shown


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", "300")
    return lambda: capsys.readouterr().out


@pytest.mark.parametrize("terminal", [False, True])
def test_a_preflight(terminal: bool, out: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Console(force_terminal=terminal, color_system=None, width=300)
    monkeypatch.setattr(preflight, "Console", lambda **_: made)
    preflight._print(REPORT)
    assert_still(out())


def test_its_json() -> None:
    line = json_line(REPORT.to_json(), indent=1)
    assert all(each.isprintable() for each in line.split("\n"))
    assert json.loads(line) == json.loads(json.dumps(REPORT.to_json()))


def test_a_funnel(out: Any) -> None:
    step = {"step": STEERING, "kept": 1, "dropped": 1, "reasons": {STEERING: 1}}
    filtering._show({"traces": 2, "steps": [step]})
    assert_still(out())


def test_an_ablation(out: Any) -> None:
    rows = [{"settings": {STEERING: STEERING}, "error": STEERING}]
    Console().print(ablate.table(rows, STEERING))
    assert_still(out())
