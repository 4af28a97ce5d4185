"""What the commands share: reading their arguments, tables and progress bars."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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

from evaluator import benchmarks, protocol, report, runner
from evaluator.benchmarks import files, hub
from evaluator.errors import InputError
from evaluator.live import RunningScore
from evaluator.protocol import Protocol
from evaluator.records import Problem

BENCHMARK_HELP = f"One of: {', '.join(benchmarks.names())}."
_BAR_SECONDS = 0.2
CPUS = os.cpu_count() or 1


def load_protocol(name: str, *, samples: int | None = None) -> Protocol:
    """A preset, or the protocol in a JSON or YAML file; ``samples`` overrides its n."""
    recipe = protocol.load(name)
    return recipe if samples is None else recipe.model_copy(update={"samples": samples})


def load_problems(benchmark: str, path: Path | None) -> list[Problem]:
    """A benchmark's problems, from a file or from the hub."""
    return files.read_problems(path, benchmark) if path is not None else hub.fetch(benchmark)


def check_writable(path: Path) -> None:
    """Find out before the work whether a file can be made at ``path``."""
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"output: {path} is not a file in an existing folder.")


def print_metrics(metrics: dict[str, Any]) -> None:
    """The scores as a table that fits a terminal."""
    n = metrics["samples"]
    table = Table(title=f"{metrics['benchmark']}: {metrics['problems']} problems × {n} samples")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for name, value, interval in report.score_rows(metrics):
        table.add_row(escape(name), value, interval)
    tokens = metrics["tokens"]
    for name in ("mean", "median", "p95"):
        if tokens[name] is not None:
            table.add_row(f"tokens per completion, {name}", f"{tokens[name]:,.0f}", "")
    table.add_section()
    for outcome, count in metrics["outcomes"].items():
        table.add_row(outcome, str(count), "")
    Console().print(table)
    if not metrics["complete"]:
        print("incomplete: some samples failed; start the run again to draw or grade them.")


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
