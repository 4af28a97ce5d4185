"""``score``, ``compare``, ``diff-protocol`` and ``rescore``: scores without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from evaluator import benchmarks, comparison, graders, passport, protocol, runner
from evaluator import rescore as rescore_run
from evaluator.benchmarks.spec import BenchmarkSpec
from evaluator.commands.console import (
    BENCHMARK_HELP,
    CPUS,
    Contests,
    PopulationFile,
    cell,
    check_writable,
    load_problems,
    load_yardstick,
    print_metrics,
    progress_bar,
)
from evaluator.diagnostics import diagnose
from evaluator.engines.replay import read_completions, shown_texts
from evaluator.errors import InputError
from evaluator.graders.extraction import detect_thinking
from evaluator.graders.pool import GraderPool
from evaluator.local import write_json
from evaluator.protocol import GradingPolicy
from evaluator.records import Completion, Problem, problems_hash
from evaluator.run_rating import Yardstick
from evaluator.statistics import SIGNIFICANCE, reproduction_z
from evaluator.store import Row
from evaluator.terminal import printable

Jobs = Annotated[int, typer.Option(min=1, help="Grader processes.")]
_SHOWN_FIELDS = 12
_SHOWN_CHARACTERS = 60


def score(
    *,
    completions: Annotated[
        Path,
        typer.Option(help="JSONL rows {problem_id, sample, completion, finish_reason?, options?}."),
    ],
    output: Annotated[Path, typer.Option(help="Where the metrics go (JSON).")],
    problems: Annotated[
        Path | None,
        typer.Option(help="JSONL, Parquet or CSV; without it the benchmark is downloaded."),
    ] = None,
    benchmark: Annotated[str, typer.Option(help=BENCHMARK_HELP)] = "custom",
    protocol_name: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            help="As in `run`; without it, r1 with the thinking tags found in the file.",
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="n; default: what the file holds.")
    ] = None,
    contests: Contests = None,
    population: PopulationFile = None,
    jobs: Jobs = CPUS,
) -> None:
    """Score completions that were made elsewhere."""
    check_writable(output)
    spec = benchmarks.get(benchmark)
    recipe = protocol.load(protocol_name or "r1")
    yardstick = load_yardstick(benchmark, contests, population)
    shown = shown_texts(completions) if spec.grader == "choice" else None
    chosen = load_problems(benchmark, problems, yardstick, shown)
    known = runner.by_id(chosen)
    rows = read_completions(completions, problems=known)
    if spec.grader != "choice" and any(row.options for row in rows):
        raise InputError(
            f"{completions.name}: its rows carry options, which benchmark {benchmark} has not; "
            "say which multiple choice it is with --benchmark."
        )
    if protocol_name is None:
        recipe = recipe.model_copy(update={"thinking": detect_thinking(rows)})
    # A preset's n is what `run` draws. Here the file says what was drawn, unless a person does.
    asked = samples or (None if protocol_name in protocol.PRESETS else recipe.samples)
    n = asked or max(row.sample for row in rows) + 1
    whole = passport.make(
        recipe,
        benchmark=benchmark,
        problems_hash=problems_hash(chosen),
        samples=n,
        engine={"name": "replay"},
    )
    metrics, graded = _grade(
        chosen, rows, spec=spec, recipe=recipe, samples=n, whole=whole, jobs=jobs
    )
    if graders.get(spec.grader).untrusted:
        rated = (yardstick or Yardstick()).rate(graded, problem_ids=known.keys(), samples=n)
        metrics["rating"] = rated
    write_json(output, metrics)
    outcomes = {(row["problem_id"], row["sample"]): row["outcome"] for row in graded}
    ended = ({**row.to_json(), "outcome": outcomes[row.key]} for row in rows)
    print_metrics(metrics, diagnose(ended, protocol=recipe, engine={"name": "replay"}))


def _grade(
    chosen: Sequence[Problem],
    rows: Sequence[Completion],
    *,
    spec: BenchmarkSpec,
    recipe: protocol.Protocol,
    samples: int,
    whole: passport.Passport,
    jobs: int,
) -> tuple[dict[str, Any], list[Row]]:
    """Metrics and verdicts of completions made elsewhere, with a bar."""
    graded: list[Row] = []

    def keep(row: Row) -> None:
        graded.append(row)
        bar(len(graded), len(rows), 0)

    with GraderPool(jobs) as pool, progress_bar("grading", "verdicts") as bar:
        metrics = runner.grade(
            chosen,
            (row.to_json() for row in rows),
            benchmark=spec,
            protocol=runner.as_served(
                recipe,
                engine={"name": "replay"},
                completions=(row.to_json() for row in rows),
            ),
            samples=samples,
            pool=pool,
            passport=whole,
            on_row=keep,
        )
    return metrics, graded


def compare(
    first: Annotated[Path, typer.Argument(help="metrics.json, or the folder of a run.")],
    second: Annotated[Path | None, typer.Argument(help="The other one.")] = None,
    published: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="A published pass@1 in [0, 1], in place of the other."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Also write the comparison as JSON.")] = None,
) -> None:
    """Compare two scores on the same problems: difference, p, what could be resolved."""
    if (second is None) == (published is None):
        raise InputError("compare: give a second metrics.json or --published, one of them.")
    if output is not None:
        check_writable(output)
    if second is None:
        assert published is not None
        result = _against_published(first, published)
    else:
        found = comparison.compare(first, second)
        result = found.to_json()
        _print_comparison(found)
    if output is not None:
        write_json(output, result)


def diff_protocol(
    first: Annotated[
        str, typer.Argument(help="A preset, a protocol file, a metrics.json or a run's folder.")
    ],
    second: Annotated[str, typer.Argument(help="The other one.")],
    benchmark: Annotated[
        str | None, typer.Option(help="Fill in what protocols leave to this benchmark.")
    ] = None,
) -> None:
    """Name the fields in which two protocols differ."""
    one, other = passport.read_both(first, second, benchmark)
    measurement = passport.differences(one.measurement, other.measurement)
    run = passport.differences(one.run, other.run)
    if not measurement and not run:
        print("no field differs.")
        return
    table = Table()
    table.add_column("field", no_wrap=True)  # a name that is cut in two cannot be searched for
    for heading in (cell(first), cell(second), "matters to"):
        table.add_column(heading, overflow="fold")
    for kind, found in (("comparing scores", measurement), ("a re-run only", run)):
        for each in found:
            table.add_row(cell(each.field), _cell(each.first), _cell(each.second), kind)
    Console().print(table)
    if measurement:
        print(f"Scores do not compare: {_listed(measurement)}.")


def rescore(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help=f"FIELD=VALUE, may be repeated; fields: {', '.join(GradingPolicy.model_fields)}."
        ),
    ] = None,
    protocol_name: Annotated[
        str | None,
        typer.Option("--protocol", help="Take thinking and policy from this preset or file."),
    ] = None,
    jobs: Jobs = CPUS,
) -> None:
    """Grade a run's completions anew, beside its old verdicts; list the differences."""
    run = rescore_run.graded_run(folder)
    rules = None if protocol_name is None else protocol.load(protocol_name)
    changed = rescore_run.changed_rules(run.protocol, policy or [], rules)
    with progress_bar("grading", "verdicts") as bar:
        made = rescore_run.rescore(run, changed, jobs=jobs, on_progress=bar)
    print_metrics(made.metrics)
    for field in made.changed_fields:
        print(f"changed: {printable(field.field)}: {_cell(field.first)} → {_cell(field.second)}")
    for (before, after), count in sorted(made.transitions.items()):
        print(f"{printable(before)} → {printable(after)}\t{count}")
    print(f"{len(made.differences)} verdicts differ; they are listed in")
    print(made.folder / "differences.jsonl")


def _against_published(first: Path, published: float) -> dict[str, Any]:
    """Print and return how far a measured pass@1 lies from a published one."""
    metrics = comparison.read_metrics(first)
    measured = metrics.get("pass@1") or {}
    if not metrics["complete"] or measured.get("value") is None:
        raise InputError(f"{first}: its score is incomplete; finish the run first.")
    z = reproduction_z(measured["value"], published, measured.get("se_rerun"))
    print(f"pass@1\t{_percent(measured['value'])}\npublished\t{_percent(published)}")
    print(f"difference\t{_points(measured['value'] - published)}")
    shown = "undefined (it takes two samples of every problem)" if z is None else f"{z:.2f}"
    print(f"z = difference / (√2 · re-run error)\t{shown}")
    return {
        "schema": "retort/comparison/1",
        "first": str(first),
        "published": published,
        "difference": measured["value"] - published,
        "z": z,
    }


def _print_comparison(found: comparison.Comparison) -> None:
    paired = found.paired
    table = Table(title=f"{cell(found.benchmark)}: {paired.problems} problems")
    table.add_column("pass@1")
    table.add_column("value", justify="right")
    for name, value in zip(found.names, found.values, strict=True):
        table.add_row(cell(name), _percent(value))
    table.add_section()
    table.add_row("difference, first minus second", _points(paired.difference))
    if paired.low is not None and paired.high is not None:
        table.add_row("95 % interval", f"{_points(paired.low)} to {_points(paired.high)}")
    if paired.se is not None:
        table.add_row("standard error, paired", _points(paired.se, sign=False))
    table.add_row("p (two-sided)", f"{paired.p:.3g}")
    if paired.resolvable is not None:
        table.add_row("smallest resolvable difference", _points(paired.resolvable, sign=False))
    Console().print(table)
    if found.measurement_differs:
        names = _listed(found.measurement) if found.measurement else "which fields is not known"
        print(f"warning: measured differently, so the scores do not compare: {names}.")
    if not paired.same_n:
        print("warning: n differs, so the test is a stricter one and there is no interval.")
    if paired.p < SIGNIFICANCE and paired.holds_zero:
        print(
            "note: p tells the two apart on these problems; the interval allows for others unlike "
            "them, and holds 0."
        )
    if found.run:
        print(f"note: the runs differ in {_listed(found.run)}.")


def _listed(found: list[passport.Difference]) -> str:
    names = [printable(each.field) for each in found]
    more = f" and {len(names) - _SHOWN_FIELDS} more" if len(names) > _SHOWN_FIELDS else ""
    return ", ".join(names[:_SHOWN_FIELDS]) + more


def _cell(value: Any) -> str:
    text = "–" if value is None else value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    cut = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
    return cell(cut)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(value: float, *, sign: bool = True) -> str:
    """A difference of percentages."""
    return f"{100 * value:+.1f} points" if sign else f"{100 * value:.1f} points"
