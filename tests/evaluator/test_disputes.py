"""A disputed outcome changes the figures beside the grader's as a count by hand says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator import disputes, metrics
from evaluator.disputes import Dispute
from evaluator.errors import InputError
from evaluator.records import Outcome, Problem

SAMPLES = 4
PROBLEMS = [Problem(f"p{i}", "?", "1") for i in range(3)]
GRADED = st.tuples(
    st.sampled_from([Outcome.CORRECT, Outcome.WRONG, Outcome.NO_ANSWER]), st.sampled_from("123")
)


def dispute(problem: str, sample: int, claim: Outcome, **values: Any) -> Dispute:
    return Dispute(problem, sample, claim, "why", "ada", "2026-01-02T03:04:05+00:00",
                   Outcome.WRONG, **values)  # fmt: skip


def aggregate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return metrics.aggregate(
        PROBLEMS, rows, benchmark="b", grader="g/1", samples=SAMPLES, measurement_hash="m",
        run_fingerprint="f", equal=lambda pairs: [a == b for a, b in pairs],
    )  # fmt: skip


def graded(cells: list[tuple[Outcome, str]]) -> list[dict[str, Any]]:
    rows = []
    for index, (outcome, answer) in enumerate(cells):
        rows.append(
            {"problem_id": f"p{index // SAMPLES}", "sample": index % SAMPLES,
             "outcome": str(outcome),
             "answer": {Outcome.CORRECT: "1", Outcome.NO_ANSWER: None}.get(outcome, answer)}
        )  # fmt: skip
    return rows


def majority_score(rows: list[dict[str, Any]]) -> float:
    """cons@n of one problem by hand: right samples are one party, the others one per answer."""
    parties: Counter[str] = Counter()
    for row in rows:
        if row["outcome"] == "correct":
            parties["right"] += 1
        elif row["answer"] is not None:
            parties["answer " + row["answer"]] += 1
    if not parties:
        return 0.0
    most = max(parties.values())
    winners = [party for party, votes in parties.items() if votes == most]
    return ("right" in winners) / len(winners)


@given(
    st.lists(GRADED, min_size=12, max_size=12),
    st.dictionaries(
        st.tuples(st.integers(0, 2), st.integers(0, 3)), st.sampled_from(disputes.CLAIMS)
    ),
)
def test_the_score_with_disputes_is_what_a_hand_count_gives(
    cells: list[tuple[Outcome, str]], claims: dict[tuple[int, int], Outcome]
) -> None:
    rows = graded(cells)
    before = aggregate(rows)
    words = [dispute(f"p{i}", s, claim) for (i, s), claim in claims.items()]
    found = disputes.rescore(
        before, PROBLEMS, rows, words, equal=lambda pairs: [a == b for a, b in pairs]
    )
    said = [dict(row) for row in rows]
    for (i, s), claim in claims.items():
        said[i * SAMPLES + s]["outcome"] = str(claim)
    right = [sum(row["outcome"] == "correct" for row in said[i * 4 : i * 4 + 4]) for i in range(3)]
    assert found["pass@1"]["value"] == pytest.approx(sum(right) / 12)
    by_hand = sum(majority_score(said[i * 4 : i * 4 + 4]) for i in range(3)) / 3
    assert found["cons@k"]["4"] == pytest.approx(by_hand)
    assert found["outcomes"] == {
        str(outcome): sum(row["outcome"] == outcome for row in said) for outcome in Outcome
    }
    assert rows == graded(cells)  # the grader's verdicts stay
    if not words:
        assert found == before


@pytest.mark.parametrize("sample", range(4))
def test_equal_strings_of_unlike_verdict_vote_as_their_mean_whichever_is_disputed(
    sample: int,
) -> None:
    rows = graded([(Outcome.WRONG, "2")] * 4 + [(Outcome.CORRECT, "1")] * 8)
    same = lambda pairs: [a == b for a, b in pairs]  # noqa: E731
    word = dispute("p0", sample, Outcome.CORRECT)
    found = disputes.rescore(aggregate(rows), PROBLEMS, rows, [word], equal=same)
    assert found["pass@1"]["value"] == pytest.approx((0.25 + 2) / 3)
    assert found["cons@k"]["4"] == pytest.approx(2 / 3), "three wrong outvote the one"
    assert found["cons@k_string"]["4"] == pytest.approx((0.25 + 2) / 3)
    assert found["cons@k_string"]["1"] == pytest.approx(found["pass@1"]["value"])
    every = [dispute("p0", each, Outcome.CORRECT) for each in range(4)]
    alike = disputes.rescore(aggregate(rows), PROBLEMS, rows, every, equal=same)
    for measure in ("cons@k", "cons@k_string"):
        assert alike[measure]["4"] == 1


def test_a_dispute_needs_a_verdict_to_dispute() -> None:
    rows = graded([(Outcome.CORRECT, "1")] * 12)
    rows[0]["outcome"] = str(Outcome.GRADER_ERROR)
    for word in (dispute("p0", 0, Outcome.CORRECT), dispute("p9", 0, Outcome.WRONG)):
        with pytest.raises(InputError, match="has no verdict in this run"):
            disputes.applied(rows, [word])


def test_disputes_survive_a_file_and_double_ones_are_refused(tmp_path: Path) -> None:
    words = [dispute("p0", 0, Outcome.CORRECT, answer="1/2"), dispute("p0", 1, Outcome.WRONG)]
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(word.to_json()) + "\n" for word in words))
    assert disputes.read(path) == words
    path.write_text(path.read_text() * 2)
    with pytest.raises(InputError, match="line 3: sample 0 of problem 'p0' is disputed a second"):
        disputes.read(path)
    with pytest.raises(ValueError, match="neither correct nor wrong"):
        Dispute.from_json({**words[0].to_json(), "claim": "looped"})


def test_a_dispute_becomes_a_golden_case() -> None:
    word = dispute("p0", 0, Outcome.CORRECT, answer="1/2")
    case = disputes.golden_case(word, kind="math", gold="0.5", policy={})
    assert {name: case[name] for name in ("kind", "gold", "prediction", "equal", "policy")} == {
        "kind": "math", "gold": "0.5", "prediction": "1/2", "equal": True, "policy": {},
    }  # fmt: skip
    assert case["about"] == "why"
