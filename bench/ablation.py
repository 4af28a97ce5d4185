"""What two fields of a recipe are worth, small and real: ``python -m bench.ablation``.

The toy's teacher and base from ``python -m distiller toy``, the demonstration's recipe over fewer
prompts, a grid of two fields (the answer filter on or off, one sample or four), four students under
one protocol with paired differences, by ``python -m distiller ablate`` as anybody would. The models
are kept under var/bench; the ablation is made anew each time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from bench._machine import WORK, measured, write
from distiller.recipe import Recipe, demo_recipe
from evaluator.benchmarks import arithmetic
from evaluator.comparison import compare
from evaluator.records import Problem

FOLDER = WORK / "ablation"
GRID = ("filters.answer.enabled=[true,false]", "generation.samples=[1,4]")
SAMPLES = 4  # of a problem


def lines(name: str, problems: list[Problem]) -> Path:
    """The problems as a file of the bench's folder."""
    path = FOLDER / name
    path.write_text("".join(json.dumps(each.to_json()) + "\n" for each in problems))
    return path


def recipe(toys: Path, prompts: int, epochs: int) -> Recipe:
    """The demonstration's, for this many prompts and epochs."""
    chosen = demo_recipe(
        teacher=str(toys / "teacher"), base=str(toys / "base"), student="student", prompts="sums"
    )
    protocol = chosen.evaluation.protocol.model_copy(update={"samples": SAMPLES})
    return chosen.model_copy(
        update={
            "prompts": chosen.prompts.model_copy(update={"limit": prompts}),
            "training": chosen.training.model_copy(update={"epochs": epochs}),
            "evaluation": chosen.evaluation.model_copy(update={"protocol": protocol}),
        }
    )


def checked(out: Path) -> list[dict[str, Any]]:
    """The table's rows, each difference computed again from the evaluations."""
    rows: list[dict[str, Any]] = json.loads((out / "table.json").read_text())["rows"]
    assert len(rows) == 4, rows
    for row in rows[1:]:
        paired = compare(out / row["evaluation"], out / rows[0]["evaluation"]).paired
        assert (row["difference"], row["p"]) == (paired.difference, paired.p), row
    return rows


def main() -> None:
    """Build what is missing, run the grid, check and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=600)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=8)
    given = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    drawn = arithmetic.generate(given.prompts + given.problems, seed=11)
    problems = lines("problems.jsonl", drawn[: given.problems])
    prompts = lines("prompts.jsonl", drawn[given.problems :])
    toys, out = FOLDER / "toys", FOLDER / "out"
    made = measured(
        [sys.executable, "-m", "distiller", "toy", "--out", toys, "--exclude", problems],
        log=FOLDER / "toy.log",
    )
    path = FOLDER / "recipe.json"
    path.write_text(recipe(toys, given.prompts, given.epochs).model_dump_json())
    shutil.rmtree(out, ignore_errors=True)
    options = [part for field in GRID for part in ("--grid", field)]
    cost = measured(
        [sys.executable, "-m", "distiller", "ablate", path, *options, "--prompts", prompts,
         "--problems", problems, "--out", out, "--jobs", 1],
        log=FOLDER / "ablate.log",
    )  # fmt: skip
    rows = checked(out)
    kept = ("settings", "traces", "examples", "pass@1", "difference", "se", "p", "p_holm")
    result = {
        "prompts": given.prompts, "problems": given.problems, "samples": SAMPLES,
        "epochs": given.epochs,
        "rows": [{name: row[name] for name in kept if name in row} for row in rows],
        "toy": made, "ablation": cost,
    }  # fmt: skip
    print((FOLDER / "ablate.log").read_text())
    print(json.dumps(result["rows"], indent=1), cost)
    write("ablation", result, packages=["torch", "transformers"])


if __name__ == "__main__":
    main()
