"""``python -m evaluator``: measure a checkpoint, grade answers, write reports, serve a worker."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluator import engines
from evaluator.benchmarks import arithmetic, countdown
from evaluator.child import serve
from evaluator.commands import grading, judge, rate, reports, scores
from evaluator.commands.console import (
    BENCHMARK_HELP,
    Contests,
    PopulationFile,
    check_writable,
    engine_options,
    load_problems,
    load_protocol,
    load_yardstick,
    print_metrics,
    progress_bar,
)
from evaluator.errors import EvaluatorError, InputError
from evaluator.graders.pool import GraderPool
from evaluator.live import RunningScore
from evaluator.local import LocalRun, write_json_lines
from evaluator.protocol import (
    PRESETS,
    engine_settings,
    samples_for,
)
from evaluator.stages import FACTORIES
from evaluator.terminal import printable

_HELP = """Measure reasoning models with honest statistics.

A first run, without a download:

\b
  python -m evaluator arithmetic --count 100 --seed 1 --output sums.jsonl
  python -m evaluator run --benchmark arithmetic --problems sums.jsonl \\
      --engine transformers --model CHECKPOINT --protocol quick --out runs/sums
  python -m evaluator report runs/sums --output sums.html

A run that was interrupted goes on when it is started again. Exit codes: 0 done, 1 an engine or a
grader failed, 2 the input cannot be used, 130 interrupted.
"""

app = typer.Typer(
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

BenchmarkName = Annotated[str, typer.Option(help=BENCHMARK_HELP)]
ProblemsFile = Annotated[
    Path | None,
    typer.Option(help="JSONL, Parquet or CSV; without it the benchmark is downloaded."),
]
ProtocolName = Annotated[
    str, typer.Option(help=f"A preset ({', '.join(PRESETS)}) or a JSON or YAML file of its fields.")
]
Jobs = Annotated[int, typer.Option(min=1, help="Grader processes.")]
_JOBS = os.cpu_count() or 1
_INTERRUPTED = 130


def main() -> int:
    """Run the command line; every expected failure ends in one sentence and an exit code."""
    try:
        app()
    except EvaluatorError as error:
        print(printable(str(error)), file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except SystemExit as end:  # how the command line library ends, well or not
        code = end.code if isinstance(end.code, int) else 0
        if code == _INTERRUPTED:
            print("interrupted; start it again to go on.", file=sys.stderr)
        return code
    return 0


@app.command()
def run(
    *,
    benchmark: BenchmarkName,
    model: Annotated[
        str,
        typer.Option(help="Checkpoint folder; replay: a completions file; openai: a name."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of this run; new, or the one to go on with.")],
    engine: Annotated[
        str, typer.Option(help=f"One of: {', '.join(engines.names())}.")
    ] = "transformers",
    base_url: Annotated[
        str | None, typer.Option(help="Engine openai: address, as http://127.0.0.1:8000/v1.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE of the engine's own, as concurrency=128; may be repeated."),
    ] = None,
    protocol: ProtocolName = "r1",
    samples: Annotated[int | None, typer.Option(min=1, help="n; default: per benchmark.")] = None,
    problems: ProblemsFile = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    contests: Contests = None,
    population: PopulationFile = None,
    jobs: Jobs = _JOBS,
) -> None:
    """Draw completions, grade them and print the scores. Interrupt it at any time."""
    recipe = load_protocol(protocol, samples=samples)
    yardstick = load_yardstick(benchmark, contests, population)
    chosen = load_problems(benchmark, problems, yardstick)[:limit]
    n = samples_for(recipe, benchmark)
    settings: dict[str, Any] = {"name": engine, "model": model, **engine_options(option or [])}
    if base_url is not None:
        settings["base_url"] = base_url
    settings |= engine_settings(recipe)
    source = engines.create(settings)
    try:
        local = LocalRun.begin(
            out,
            benchmark=benchmark,
            problems=chosen,
            protocol=recipe,
            samples=n,
            engine=source.describe(),
            checkpoint=model if engine == "openai" else str(Path(model).resolve()),
        )
        if yardstick is not None:
            local.rate_by(yardstick)
        with GraderPool(jobs) as pool:
            metrics = _draw_and_grade(local, source, pool)
    finally:
        source.close()
    print_metrics(metrics, local.diagnostics(local.grades()))
    if metrics["outcomes"]["engine_error"] and (failure := local.first_error()) is not None:
        print(f"a sample failed: {printable(str(failure))}", file=sys.stderr)
    print(f"\n{out / 'metrics.json'}")


def _draw_and_grade(local: LocalRun, source: engines.Engine, pool: GraderPool) -> dict[str, Any]:
    """Draw what is missing while the score is shown, then grade what is left."""
    score = RunningScore(
        local.problems, benchmark=local.benchmark, protocol=local.protocol, pool=pool
    )
    try:
        with score, progress_bar("drawing", "samples", score) as bar:
            local.draw(source, bar, score.add)
    except InputError:
        local.discard_if_empty()
        raise
    with progress_bar("grading", "verdicts") as bar:
        # What was graded meanwhile was not read as all completions together say.
        known = score.rows if local.as_served(local.protocol) == local.protocol else []
        bar(len(known), local.total, 0)
        graded = itertools.count(len(known) + 1)
        return local.grade(pool, on_row=lambda _: bar(next(graded), local.total, 0), graded=known)


@app.command("arithmetic")
def write_arithmetic(
    count: Annotated[int, typer.Option(min=1, help="Problems.")],
    output: Annotated[Path, typer.Option(help="JSONL to write.")],
    seed: Annotated[int, typer.Option(help="Another seed, other problems.")] = 0,
    terms: Annotated[int, typer.Option(min=2, help="Numbers in a problem.")] = 3,
) -> None:
    """Write the generated benchmark `arithmetic`."""
    check_writable(output)
    rows = [problem.to_json() for problem in arithmetic.generate(count, seed=seed, terms=terms)]
    write_json_lines(output, rows)


app.command()(grading.grade)
app.command()(reports.report)
app.command("verify-report")(reports.verify_report)


@app.command("countdown")
def write_countdown(
    count: Annotated[int, typer.Option(min=1, help="Problems.")],
    output: Annotated[Path, typer.Option(help="JSONL to write.")],
    seed: Annotated[int, typer.Option(help="Another seed, other problems.")] = 0,
    numbers: Annotated[int, typer.Option(min=2, help="Numbers in a problem.")] = 4,
) -> None:
    """Write the generated benchmark `countdown`."""
    check_writable(output)
    made = countdown.generate(count, seed=seed, numbers=numbers)
    write_json_lines(output, [problem.to_json() for problem in made])


app.command()(scores.score)
app.command()(scores.compare)
app.command("diff-protocol")(scores.diff_protocol)
app.command()(scores.rescore)
app.command()(judge.judge)
app.command()(rate.rate)
app.command("import-contest")(rate.import_contest)


@app.command(hidden=True)
def stage(spec: Annotated[Path, typer.Argument(help="The stage's spec.json.")]) -> None:
    """Carry out shards for a worker: JSON lines in and out (docs/architecture.md)."""
    raise typer.Exit(serve(spec, FACTORIES))
