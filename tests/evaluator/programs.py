"""Two contests whose problems are quick to solve, and completions of every kind for them."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

RIGHT, WRONG, SLOW, SILENT, CUT = "right", "wrong", "slow", "silent", "cut"
# Problem id → what its samples are; the problems of contest 9001 are worth points, 9002's count.
SAMPLES: dict[str, tuple[str, ...]] = {
    "9001/A": (RIGHT,) * 8,
    "9001/B": (WRONG, SILENT, RIGHT, WRONG, RIGHT, WRONG, CUT, WRONG),
    "9002/A": (WRONG, RIGHT, RIGHT, WRONG, RIGHT, RIGHT, WRONG, RIGHT),
    "9002/B": (SLOW,) + (WRONG,) * 7,
}
POWERS = {"9001/A": 1, "9001/B": 2, "9002/A": 3, "9002/B": 4}


def row(problem_id: str) -> dict[str, Any]:
    """A problem of the hub's form: print a power of the number given."""
    power = POWERS[problem_id]
    return {
        "id": problem_id, "title": f"Power {power}", "time_limit": 1.0, "memory_limit": 256.0,
        "description": f"Print $n^{power}$ for a given $n$.", "input_format": "One number $n$.",
        "output_format": "Its power.", "examples": [{"input": "2\n", "output": f"{2**power}\n"}],
        "official_tests": [
            {"input": f"{n}\n", "output": f"{n**power}\n"} for n in (2, 3, 10)
        ],
        "input_mode": "stdio", "generated_checker": None, "interaction_format": None,
    }  # fmt: skip


def bundle(contest: str, *, standings: list[list[float]] | None = None) -> dict[str, Any]:
    icpc = contest == "9002"
    rng = random.Random(contest)
    if standings is None:
        scores = [0, 500, 450, 1000, 1500, 2000] if not icpc else [1, 2, 3]
        standings = [
            [rng.choice(scores), rng.choice([0, 10, 40]) if icpc else 0, rng.randint(600, 2300)]
            for _ in range(250 if icpc else 150)
        ]
    return {
        "schema": "retort/contest/1",
        "contest": {
            "id": contest, "name": f"Round {contest}", "scoring": "icpc" if icpc else "points",
        },
        "standings": standings,
        "problems": [
            {
                "index": index, "points": None if icpc else points,
                "problem": row(f"{contest}/{index}"),
            }
            for index, points in (("A", 500), ("B", 1000))
        ],
    }  # fmt: skip


def text(problem_id: str, kind: str) -> str:
    power = POWERS[problem_id]
    if kind == SILENT:
        return "I would square it, but I will not write it down."
    if kind == CUT:
        return "```python\nprint(int(input())"
    body = {
        RIGHT: f"print(int(input()) ** {power})",
        WRONG: f"print(int(input()) ** {power} + (1 if {power} > 0 else 0))",
        SLOW: "while True: pass",
    }[kind]
    return f"So it is.\n\n```python\n{body}\n```\n"


def completions() -> list[dict[str, Any]]:
    return [
        {
            "problem_id": problem_id, "sample": sample, "completion": text(problem_id, kind),
            "finish_reason": "length" if kind == CUT else "stop",
        }
        for problem_id, kinds in SAMPLES.items()
        for sample, kind in enumerate(kinds)
    ]  # fmt: skip


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


# --- the rating, counted by hand: no code of the product's


def performance(contest: dict[str, Any], points: float, penalty: float) -> float:
    """Place by comparing with everybody; rating by trying every tenth of a point."""
    rows = contest["standings"]
    better = sum(p > points or (p == points and q < penalty) for p, q, _ in rows)
    tied = sum(p == points and q == penalty for p, q, _ in rows)
    place = 1 + better + tied
    ratings = [rating for _, _, rating in rows]

    def seed(rating: float) -> float:
        return 1 + sum(1 / (1 + 10 ** ((rating - each) / 400)) for each in ratings)

    top = 10 * (max(ratings) + 100)
    low, high = 0, top  # in tenths of a point; the seed falls with the rating
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if seed(middle / 10) >= place else (low, middle)
    return (low + 0.5) / 10 if 0 < low < top - 1 else (low + (high == top)) / 10


def worth(contest: dict[str, Any], index: str, rejected: int) -> tuple[float, float]:
    if contest["contest"]["scoring"] == "icpc":
        return 1.0, 10.0 * rejected
    points = next(each["points"] for each in contest["problems"] if each["index"] == index)
    return max(0.0, points - 50.0 * rejected), 0.0


def rating_at_1(contest: dict[str, Any]) -> float:
    """The mean over every way to take one sample of each problem."""
    name = contest["contest"]["id"]
    indices = [each["index"] for each in contest["problems"]]
    choices = list(itertools.product(*(SAMPLES[f"{name}/{index}"] for index in indices)))
    total = 0.0
    for kinds in choices:
        won = [
            worth(contest, i, 0) for i, kind in zip(indices, kinds, strict=True) if kind == RIGHT
        ]
        total += performance(contest, sum(p for p, _ in won), sum(q for _, q in won))
    return total / len(choices)


def rating_at_8(contest: dict[str, Any]) -> float:
    name = contest["contest"]["id"]
    won = [
        worth(contest, each["index"], kinds.index(RIGHT))
        for each in contest["problems"]
        if RIGHT in (kinds := SAMPLES[f"{name}/{each['index']}"])
    ]
    return performance(contest, sum(p for p, _ in won), sum(q for _, q in won))
