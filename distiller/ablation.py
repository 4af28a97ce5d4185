"""Ablation: one recipe, a grid over some of its fields, a student for each cell, one protocol.

What two cells have in common is made once: traces are kept by what they are drawn with, corpora by
what they are filtered with, students by the corpus and the training that they come from. So cells
that differ in a filter share their traces, and a filter that drops nothing costs no training. A
step that is finished is not done again, whichever sitting did it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distiller import checkpoints, corpus, filters, local, refining
from distiller.errors import InputError
from distiller.recipe import FilterChoice, Recipe
from evaluator import engines
from evaluator.comparison import compare
from evaluator.graders.pool import GraderPool
from evaluator.local import LocalRun, write_json
from evaluator.protocol import engine_settings, first_mistake, samples_for
from evaluator.records import Problem, canonical_json, content_hash, problems_hash
from evaluator.statistics import holm

SCHEMA = "retort/ablation/1"
_SHORT = 12  # digits of a hash in a folder's name
_ON = "enabled"
_PASSED = "passed.json"

Grid = dict[str, list[Any]]
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Cell:
    """One point of the grid: the fields' values, and the recipe that they make."""

    settings: dict[str, Any]
    recipe: Recipe

    @property
    def name(self) -> str:
        """The settings in a line."""
        return ", ".join(f"{field}={json.dumps(value)}" for field, value in self.settings.items())


@dataclass(frozen=True, slots=True)
class Bench:
    """What the students are measured on."""

    benchmark: str
    problems: list[Problem]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that one ablation is made of. ``teacher`` is the engine's settings."""

    recipe: Recipe
    grid: Grid
    prompts: list[Problem]
    bench: Bench
    teacher: Mapping[str, Any]
    device: str = "cpu"
    jobs: int = 1


def parse_grid(texts: Iterable[str]) -> Grid:
    """``FIELD=[value, …]`` each, the values as JSON; raises InputError."""
    grid: Grid = {}
    for text in texts:
        field, _, raw = text.partition("=")
        try:
            values = json.loads(raw)
        except ValueError:
            values = None
        if not field or field in grid or not isinstance(values, list) or not values:
            raise InputError(
                f"grid: {text!r} is not FIELD=[value, …] with JSON values and a field of its own, "
                "as filters.answer.enabled=[true,false]."
            )
        if len({canonical_json(value) for value in values}) < len(values):
            raise InputError(f"grid: {field}: a value occurs twice; remove one.")
        grid[field] = values
    if not grid:
        raise InputError("grid: there is no field; give one, as generation.samples=[1,4].")
    return grid


def cells(recipe: Recipe, grid: Grid) -> list[Cell]:
    """Every combination of the grid's values, the last field changing fastest.

    A field is a path in the recipe; ``filters.NAME.enabled`` switches a filter and
    ``filters.NAME.PARAMETER`` sets one of its parameters. Raises InputError for a field that the
    recipe has not, or a value that it cannot take.
    """
    made = []
    for values in itertools.product(*grid.values()):
        settings = dict(zip(grid, values, strict=True))
        plain = recipe.model_dump(mode="json")
        # Switches first: a parameter may belong to a filter that another field switches on.
        for field in sorted(settings, key=lambda field: not field.endswith(f".{_ON}")):
            _set(plain, field, settings[field])
        try:
            changed = Recipe.model_validate(plain)
        except ValidationError as error:
            raise InputError(f"grid: {first_mistake(error)}") from error
        filters.create(changed.filters)
        made.append(Cell(settings, changed))
    return made


def _set(plain: dict[str, Any], field: str, value: Any) -> None:
    head, *rest = field.split(".")
    if head == "filters":
        if len(rest) < 2:
            raise InputError(f"grid: {field}: say which part, as filters.answer.enabled.")
        plain["filters"] = _with_filter(plain["filters"], rest[0], rest[1:], value, field)
        return
    place = plain
    for part in field.split(".")[:-1]:
        inner = place.get(part)
        if not isinstance(inner, dict):
            raise InputError(f"grid: the recipe has no field {field!r}; check its name.")
        place = inner
    last = field.rsplit(".", maxsplit=1)[-1]
    if last not in place:
        raise InputError(f"grid: the recipe has no field {field!r}; check its name.")
    place[last] = value


def _with_filter(
    chosen: list[dict[str, Any]], name: str, path: list[str], value: Any, field: str
) -> list[dict[str, Any]]:
    """The filters with one switched, or with one of its parameters set."""
    there = any(choice["name"] == name for choice in chosen)
    if path == [_ON]:
        if not isinstance(value, bool):
            raise InputError(f"grid: {field}: {value!r} is not true or false.")
        if value:
            return chosen if there else [*chosen, FilterChoice(name=name).model_dump(mode="json")]
        return [choice for choice in chosen if choice["name"] != name]
    if not there:
        return chosen  # switched off in this cell: it has no parameters
    changed = []
    for choice in chosen:
        parameters = json.loads(json.dumps(choice["parameters"]))
        if choice["name"] == name:
            place = parameters
            for part in path[:-1]:
                place = place.setdefault(part, {})
            place[path[-1]] = value
        changed.append({"name": choice["name"], "parameters": parameters})
    return changed


class Ablation:
    """An ablation in a folder; raises InputError where another one is there already.

    ``ablation.json`` the plan · ``traces/`` · ``filtered/`` · ``students/`` · ``evaluations/``,
    a folder for each hash · ``table.json``.
    """

    def __init__(self, plan: Plan, out: Path) -> None:
        self.plan, self.out = plan, out
        self.cells = cells(plan.recipe, plan.grid)
        self._base_hash = checkpoints.inspect(Path(plan.recipe.base)).content_hash
        fixed = {"base", "student", "name"} & plan.grid.keys()
        if fixed:
            raise InputError(f"grid: {min(fixed)} cannot differ between the cells; leave it out.")
        if any(field.startswith("evaluation") for field in plan.grid):
            raise InputError("grid: evaluation must be one for all cells; leave it out.")
        identity = {
            "schema": SCHEMA,
            "recipe": plan.recipe.model_dump(mode="json"),
            "grid": plan.grid,
            "prompts": problems_hash(plan.prompts),
            "benchmark": [plan.bench.benchmark, problems_hash(plan.bench.problems)],
            "base": self._base_hash,
        }
        path = out / "ablation.json"
        if path.exists():
            there = json.loads(path.read_bytes())
            for field, value in identity.items():
                if canonical_json(there.get(field)) != canonical_json(value):
                    raise InputError(
                        f"out: {out} holds an ablation with another {field}; choose a new folder."
                    )
        elif out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"out: {out} holds other files; choose a new folder.")
        else:
            out.mkdir(parents=True, exist_ok=True)
            write_json(path, identity)

    def run(self, on_progress: OnProgress = lambda step, done, total: None) -> list[dict[str, Any]]:
        """Make every cell; write and return the table's rows, the first cell being the reference.

        A cell whose filters leave nothing has its sentence in the table, and no score.
        """
        rows = []
        for number, cell in enumerate(self.cells, start=1):
            label = f"cell {number}/{len(self.cells)}"

            def say(step: str, done: int, total: int, label: str = label) -> None:
                on_progress(f"{label}: {step}", done, total)

            rows.append(self._cell(cell, say))
        self._compare(rows)
        table = {"schema": SCHEMA, "reference": self.cells[0].name, "rows": rows}
        write_json(self.out / "table.json", table)
        return rows

    def _cell(self, cell: Cell, on_progress: OnProgress) -> dict[str, Any]:
        row: dict[str, Any] = {"settings": cell.settings}
        drawn = self._traces(cell.recipe, on_progress)
        tally = json.loads((drawn / "tally.json").read_bytes())
        row |= {"traces": tally["traces"], "yield": tally["yield"], "cost": tally["cost"]}
        try:
            filtered = self._filtered(cell.recipe, drawn, on_progress)
        except InputError as error:  # an empty corpus, or one that teaches what it must not
            return row | {"error": str(error)}
        _, manifest = corpus.read(filtered / "corpus")
        row |= {"examples": manifest["examples"], "corpus": corpus.manifest_hash(manifest)}
        student = self._student(cell.recipe, filtered, row["corpus"], on_progress)
        metrics = self._measured(cell.recipe, student, on_progress)
        return row | {
            "student": checkpoints.inspect(student).content_hash,
            "evaluation": f"evaluations/{student.name}",
            "pass@1": metrics["pass@1"],
            "measurement_hash": metrics["measurement_hash"],
            "complete": metrics["complete"],
        }

    def _traces(self, recipe: Recipe, on_progress: OnProgress) -> Path:
        """Drawn once for all cells that ask the teacher alike."""
        prompts = self.plan.prompts[: recipe.prompts.limit]
        verdicts = recipe.generation.stop_after is not None
        key = content_hash(
            [
                local.describe(recipe, prompts, self.plan.teacher),
                [c.model_dump(mode="json") for c in recipe.filters if verdicts],
            ]
        )
        folder = self.out / "traces" / key[:_SHORT]
        tally = folder / "tally.json"
        if tally.exists() and not json.loads(tally.read_bytes())["errors"]:
            return folder
        with closing(engines.create(self.plan.teacher)) as engine:
            begun = local.Generation.begin(
                folder, recipe=recipe, problems=prompts, engine=engine.describe()
            )
            begun.draw(engine, lambda done, total, tokens: on_progress("generate", done, total))
        return folder

    def _filtered(self, recipe: Recipe, drawn: Path, on_progress: OnProgress) -> Path:
        key = content_hash(
            [
                drawn.name,
                recipe.model_dump(mode="json", exclude={"generation", "training", "evaluation"}),
                recipe.training.max_length_tokens,
                self._base_hash,
            ]
        )
        folder = self.out / "filtered" / key[:_SHORT]
        if (folder / _PASSED).exists():
            return folder
        bench = self.plan.bench
        result = refining.refine(
            [drawn / "traces.jsonl.gz"],
            prompts=self.plan.prompts[: recipe.prompts.limit],
            recipe=recipe,
            benchmarks={bench.benchmark: bench.problems},
            base_model=Path(recipe.base),
            out=folder,
            jobs=self.plan.jobs,
            on_progress=lambda done, total: on_progress("filter", done, total),
        )
        write_json(folder / _PASSED, result["funnel"])  # also where the corpus is there: no fault
        return folder

    def _student(
        self, recipe: Recipe, filtered: Path, corpus_hash: str, on_progress: OnProgress
    ) -> Path:
        """Trained once for all cells whose corpora and trainings are the same."""
        from distiller import sft

        training = recipe.training.model_dump(mode="json", exclude={"save_seconds"})
        key = content_hash([corpus_hash, training, self._base_hash])
        folder = self.out / "students" / key[:_SHORT]
        if not folder.exists():
            sft.train(
                filtered / "corpus",
                Path(recipe.base),
                recipe.training,
                folder,
                resume=folder.with_name(f"{folder.name}.resume"),
                device=self.plan.device,
                on_progress=lambda done, total, tokens: on_progress("train", done, total),
            )
        return folder

    def _measured(self, recipe: Recipe, student: Path, on_progress: OnProgress) -> dict[str, Any]:
        folder = self.out / "evaluations" / student.name
        path = folder / "metrics.json"
        if path.exists():
            metrics: dict[str, Any] = json.loads(path.read_bytes())
            if metrics["complete"]:
                return metrics
        protocol, bench = recipe.evaluation.protocol, self.plan.bench
        chosen = recipe.generation.engine
        settings = {
            "name": "transformers" if chosen == "openai" else chosen,
            "model": str(student),
            **engine_settings(protocol),
        }
        with (
            closing(engines.create(settings)) as engine,
            GraderPool(self.plan.jobs) as pool,
        ):
            run = LocalRun.begin(
                folder,
                benchmark=bench.benchmark,
                problems=bench.problems,
                protocol=protocol,
                samples=samples_for(protocol, bench.benchmark),
                engine=engine.describe(),
                checkpoint=str(student.resolve()),
            )
            run.draw(engine, lambda done, total, tokens: on_progress("evaluate", done, total))
            return run.grade(pool, on_row=lambda row: None)

    def _compare(self, rows: Sequence[dict[str, Any]]) -> None:
        """Each cell against the first: paired over problems, p values after Holm."""
        scored = [row for row in rows if row.get("complete")]
        if not scored or scored[0] is not rows[0]:
            return
        reference = self.out / rows[0]["evaluation"]
        others = scored[1:]
        for row in others:
            paired = compare(self.out / row["evaluation"], reference).paired
            row |= {"difference": paired.difference, "se": paired.se, "p": paired.p}
        for row, p in zip(others, holm([row["p"] for row in others]), strict=True):
            row["p_holm"] = p
