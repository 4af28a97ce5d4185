"""What the commands share: reading their arguments, tables and progress bars."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from evaluator import benchmarks, graders, programs_report, protocol, report, runner
from evaluator.benchmarks import codeforces, files, hub
from evaluator.diagnostics import Diagnostics
from evaluator.errors import InputError
from evaluator.live import RunningScore
from evaluator.programs_report import RatingRow
from evaluator.protocol import Protocol
from evaluator.records import Outcome, Problem
from evaluator.run_rating import Yardstick
from evaluator.terminal import printable

BENCHMARK_HELP = f"One of: {', '.join(benchmarks.names())}."
Contests = Annotated[
    list[Path] | None,
    typer.Option(
        help="codeforces: a contest bundle, or a folder of them, to be rated by; may be repeated. "
        "Without --problems, its problems are the benchmark."
    ),
]
PopulationFile = Annotated[
    Path | None,
    typer.Option(
        help="Ratings that percentiles refer to: a JSON list, or {rating: count}; default: the "
        "contests' participants."
    ),
]
_BAR_SECONDS = 0.2
CPUS = os.cpu_count() or 1


def load_protocol(name: str, *, samples: int | None = None) -> Protocol:
    """A preset, or the protocol in a JSON or YAML file; ``samples`` overrides its n."""
    recipe = protocol.load(name)
    return recipe if samples is None else recipe.model_copy(update={"samples": samples})


def load_problems(
    benchmark: str,
    path: Path | None,
    yardstick: Yardstick | None = None,
    shown: files.Shown | None = None,
) -> list[Problem]:
    """A benchmark's problems: from a file, from the bundles of ``yardstick``, or from the hub.

    ``shown`` gives the options of a choice's problems where their file has none.
    """
    if path is not None:
        return files.read_problems(path, benchmark, shown)
    if yardstick is not None and yardstick.contests:
        return codeforces.of_contests(yardstick.contests)
    return hub.fetch(benchmark)


def load_yardstick(
    benchmark: str, contests: list[Path] | None, population: Path | None
) -> Yardstick | None:
    """What programs are rated by; None where nothing is given.

    Raises InputError where the benchmark's answers are no programs, and SandboxUnavailableError
    where they are, and cannot be run here: before anything is generated.
    """
    grader = graders.get(benchmarks.get(benchmark).grader)
    grader.check_available()
    if population is not None and not contests:
        raise InputError("population: it rates nothing without --contests; give bundles.")
    if not contests:
        return None
    if not grader.untrusted:
        raise InputError(f"contests: {benchmark} is not rated; only programs are.")
    return Yardstick.read(contests, population)


def engine_options(pairs: list[str]) -> dict[str, Any]:
    """NAME=VALUE each; a value that is JSON (a number, true) is read as such."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name or name in options or name in ("name", "model"):
            raise InputError(f"option: {pair!r} is not NAME=VALUE with a name of its own.")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        options[name] = value if isinstance(value, int | float) else text
    return options


def cell(text: str) -> str:
    """A text of a file as a table shows it: neither markup nor anything that steers a terminal."""
    return escape(printable(text))


def check_writable(path: Path) -> None:
    """Find out before the work whether a file can be made at ``path``."""
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"output: {path} is not a file in an existing folder.")


def print_metrics(metrics: dict[str, Any], told: Diagnostics | None = None) -> None:
    """The scores as a table that fits a terminal, then what a reader of them must know."""
    n = metrics["samples"]
    table = Table(
        title=f"{cell(metrics['benchmark'])}: {metrics['problems']} problems × {n} samples"
    )
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for name, value, interval in report.score_rows(metrics):
        table.add_row(cell(name), value, interval)
    tokens = metrics["tokens"]
    lengths = {name: tokens[name] for name in ("mean", "median", "p95", "max")}
    if told is not None:
        lengths["median of correct"] = told.lengths.median_right
        lengths["median of others"] = told.lengths.median_other
    for name, value in lengths.items():
        if value is not None:
            table.add_row(f"tokens each, {name}", f"{value:,.0f}", "")
    for row in programs_report.ratings(metrics):
        table.add_row(cell(row.title), *_rating_cells(row))
    table.add_section()
    for outcome, count in metrics["outcomes"].items():
        table.add_row(cell(outcome), str(count), "")
    if mix := programs_report.verdicts(metrics):
        table.add_section()
        for each in mix:
            table.add_row(cell(f"{each.verdict} {each.words}".strip()), str(each.count), "")
    Console().print(table)
    for sentence in programs_report.notes(metrics):
        print(printable(sentence))
    for alarm in () if told is None else told.alarms:
        print(f"{'alarm' if alarm.grave else 'note'}: {alarm.sentence}")
    if not metrics["complete"]:
        failed = {o: n for o, n in metrics["outcomes"].items() if Outcome(o).is_error and n}
        counts = ", ".join(f"{count} {outcome}" for outcome, count in failed.items())
        print(
            f"alarm: incomplete ({counts}): there are bounds and no score until these are drawn or "
            "graded; start it again."
        )


def _rating_cells(row: RatingRow) -> tuple[str, str]:
    if row.value is None:
        return "", ""
    mark = f" ({row.bound})" if row.bound else ""
    beaten = "" if row.percentile is None else f", above {row.percentile:.1f} %"
    interval = "" if row.low is None or row.high is None else f"{row.low:,.0f} – {row.high:,.0f}"
    return f"{row.value:,.0f}{mark}{beaten}", interval


@contextmanager
def progress_bar(
    action: str, unit: str, score: RunningScore | None = None
) -> Iterator[runner.Progress]:
    """A progress bar on standard error, fed with done, total and tokens.

    With ``score`` it shows pass@1 of what is graded so far and its 95 % interval.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),  # what the words leave: they matter more
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn(unit + "{task.fields[rate]}{task.fields[score]}"),
        TextColumn("left"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(stderr=True), expand=True) as progress:
        task = progress.add_task(action, total=None, rate="", score="")
        shown = 0.0

        def update(done: int, total: int, tokens: int) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown < _BAR_SECONDS and done < total:
                return
            shown = now
            seconds = progress.tasks[0].elapsed or 0.0
            rate = f", {tokens / seconds:,.0f} tok/s" if tokens and seconds else ""
            estimate = None if score is None else score.estimate()
            text = (
                ""
                if estimate is None
                else f", pass@1 {100 * estimate.value:.1f} % "
                f"({100 * estimate.low:.1f}–{100 * estimate.high:.1f})"
            )
            progress.update(task, completed=done, total=total, rate=rate, score=text)

        yield update
