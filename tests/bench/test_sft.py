"""The comparison with TRL goes on after an interruption, and ends in time."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench import sft
from bench._machine import Cost

PLANS = {way: ("ours", f"short-{way}", {"base": way}) for way in ("a", "b")}


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labels of what is trained, each within 10 s by its own account."""
    labels: list[str] = []

    def measured(command: Sequence[Any], *, log: Path) -> Cost:
        given = json.loads(Path(command[-1]).read_text())
        labels.append(log.stem)
        Path(given["result"]).write_text(json.dumps({"number": len(labels)}))
        return Cost(10.0, 5.0, 1.0)

    monkeypatch.setattr(sft, "FOLDER", tmp_path)
    monkeypatch.setattr(sft, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(sft, "measured", measured)
    return labels


def test_what_was_trained_before_an_interruption_is_not_trained_again(
    trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(label: str, one: dict[str, Any]) -> None:
        if len(trained) == 3:
            raise KeyboardInterrupt

    late = time.monotonic() + 1000
    with pytest.raises(KeyboardInterrupt):
        sft.by_turns(PLANS, 2, late, interrupted)
    runs = sft.by_turns(PLANS, 2, late, lambda label, one: None)
    assert trained == ["short-a", "short-b", "short-a", "short-b"]
    assert {way: [one["number"] for one in found] for way, found in runs.items()} == {
        "a": [1, 3], "b": [2, 4]
    }  # fmt: skip
    monkeypatch.setattr(sft, "code", lambda: "changed")
    sft.by_turns(PLANS, 1, late, lambda label, one: None)
    assert len(trained) == 6


@pytest.mark.parametrize(("seconds", "rounds"), [(0, 1), (15, 1), (25, 3)])
def test_a_further_round_begins_only_where_it_can_end(
    trained: list[str], seconds: float, rounds: int
) -> None:
    """A round of two takes 20 s."""
    sft.by_turns(PLANS, 3, time.monotonic() + seconds, lambda label, one: None)
    assert len(trained) == 2 * rounds
