"""Ablations: the grid, what is shared between cells, what is not done twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distiller import ablation
from distiller.ablation import Ablation, Bench, Plan, cells, parse_grid
from distiller.errors import InputError
from evaluator.benchmarks import arithmetic
from evaluator.comparison import compare
from tests.distiller.samples import recipe


def names(made: ablation.Cell) -> list[str]:
    return [choice.name for choice in made.recipe.filters]


def test_a_grid_is_every_combination_and_switches_filters() -> None:
    grid = parse_grid(
        ["filters.answer.enabled=[true,false]", "filters.answer.grader=[\"integer\"]",
         "generation.samples=[1,4]"]
    )  # fmt: skip
    made = cells(recipe(filters=[{"name": "truncated"}]), grid)
    assert [(names(cell), cell.recipe.generation.samples) for cell in made] == [
        (["truncated", "answer"], 1), (["truncated", "answer"], 4),
        (["truncated"], 1), (["truncated"], 4),
    ]  # fmt: skip
    assert made[0].recipe.filters[1].parameters == {"grader": "integer"}
    assert made[3].name.startswith("filters.answer.enabled=false, ")


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["generation.samples"], "is not FIELD="),
        (["generation.samples=4"], "is not FIELD="),
        (["generation.samples=[]"], "is not FIELD="),
        (["generation.samples=[1]", "generation.samples=[2]"], "is not FIELD="),
        (["generation.samples=[1,1]"], "occurs twice"),
        ([], "there is no field"),
        (["generation.colour=[1]"], "no field 'generation.colour'"),
        (["colour.samples=[1]"], "no field 'colour.samples'"),
        (["generation.samples=[0]"], "generation.samples: "),
        (["filters.answer.enabled=[1]"], "is not true or false"),
        (["filters.nonsense.enabled=[true]"], "nonsense"),
        (["filters=[[]]"], "say which part"),
    ],
)
def test_a_bad_grid_is_one_sentence(texts: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=r"grid|filter") as caught:
        cells(recipe(), parse_grid(texts))
    assert sentence in str(caught.value)


@pytest.fixture
def plan(tiny_qwen: Path) -> Plan:
    sampling, thinking = {"temperature": 1.0, "max_tokens": 6}, {"kind": "none"}
    chosen = recipe(
        tiny_qwen, teacher=str(tiny_qwen), filters=[], thinking=thinking,
        generation={"samples": 1, "sampling": sampling},
        training={"epochs": 1, "batch_size": 4, "max_length_tokens": 64},
        evaluation={"benchmarks": ["arithmetic"],
                    "protocol": {"samples": 2, "sampling": sampling, "thinking": thinking}},
    )  # fmt: skip
    answer = {"grader": "integer"}
    return Plan(
        recipe=chosen.model_copy(
            update={"filters": recipe(filters=[{"name": "answer", "parameters": answer}]).filters}
        ),
        grid={},
        prompts=arithmetic.generate(6, seed=1),
        bench=Bench("arithmetic", arithmetic.generate(5, seed=2)),
        teacher={"name": "transformers", "model": str(tiny_qwen)},
    )


def made(out: Path, kind: str) -> set[str]:
    return {path.name for path in (out / kind).iterdir() if path.is_dir()}


def test_cells_share_what_they_can_and_nothing_is_done_twice(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = parse_grid(["filters.answer.enabled=[false,true]", "generation.samples=[1,2]"])
    out = tmp_path / "out"
    rows = Ablation(replace(plan, grid=grid), out).run()
    assert [row["traces"] for row in rows] == [6, 12, 6, 12]
    # A random teacher is never right: that cell trains nothing, and says so.
    assert ["error" in row for row in rows] == [False, False, True, True]
    assert all("corpus: empty" in row["error"] for row in rows[2:])
    assert len(made(out, "traces")) == len(made(out, "students")) == 2
    paired = compare(out / rows[1]["evaluation"], out / rows[0]["evaluation"]).paired
    assert (rows[1]["difference"], rows[1]["p"]) == (paired.difference, paired.p)
    assert rows[1]["p_holm"] == rows[1]["p"]  # one comparison
    assert json.loads((out / "table.json").read_text())["rows"] == rows

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("done a second time")

    monkeypatch.setattr("distiller.ablation.engines.create", never)
    monkeypatch.setattr("distiller.sft.train", never)
    assert Ablation(replace(plan, grid=grid), out).run() == rows


def test_a_filter_that_drops_nothing_costs_no_training(plan: Plan, tmp_path: Path) -> None:
    grid = parse_grid(["filters.answer.enabled=[false]", "filters.duplicates.enabled=[true,false]"])
    rows = Ablation(replace(plan, grid=grid), tmp_path / "out").run()
    same = rows[0]["examples"] == rows[1]["examples"]
    assert (rows[0]["student"] == rows[1]["student"]) == same
    assert len(made(tmp_path / "out", "students")) == (1 if same else 2)
    assert len(made(tmp_path / "out", "traces")) == 1


def test_another_ablation_in_the_folder_is_refused(plan: Plan, tmp_path: Path) -> None:
    one = replace(plan, grid=parse_grid(["generation.samples=[1]"]))
    Ablation(one, tmp_path / "out")
    with pytest.raises(InputError, match="another grid"):
        Ablation(replace(one, grid={"generation.samples": [2]}), tmp_path / "out")
    with pytest.raises(InputError, match="another prompts"):
        Ablation(replace(one, prompts=plan.prompts[:2]), tmp_path / "out")
    with pytest.raises(InputError, match="must be one for all"):
        Ablation(replace(one, grid={"evaluation.roles": [[]]}), tmp_path / "x")
