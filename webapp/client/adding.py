"""What administrators add to an installation: benchmarks, prompt sets, contests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from webapp.client import showing
from webapp.client.options import connected, group
from webapp.client.showing import say

benchmark = group(
    """Benchmarks of the server: list them, or add one from a file.

    \b
      retort benchmark add aime_2024 aime.jsonl
      retort benchmark add gsm8k test.parquet
    """
)
prompts = group(
    """Prompt sets of the server, from which a teacher's traces are drawn.

    \b
      retort prompts add my-prompts prompts.jsonl --like math_500
    """
)
contest = group(
    """Contests by which programs are rated, and the people that percentiles refer to.

    \b
      retort contest add round-1350.json.gz
      retort contest add ratings.json --population
    """
)

Problems = Annotated[
    Path, typer.Argument(help=".jsonl, .jsonl.gz, .parquet or .csv", dir_okay=False)
]


@benchmark.command("list")
def benchmark_list() -> None:
    """List every version of every benchmark, the newest first."""
    with connected() as retort:
        found = list(retort.benchmarks())
    showing.table(
        ("Benchmark", "Name", "Problems", "Grader", "Version", "Source"),
        [(b.id, b.name, b.problem_count, b.grader, b.content_hash[:8], b.source) for b in found],
    )


@benchmark.command("add")
def benchmark_add(
    name: Annotated[str, typer.Argument(help="As it is known there: aime_2024, math_500, …")],
    file: Problems,
) -> None:
    """Add a benchmark, or another version of it; the same problems add nothing."""
    with connected() as retort:
        made = retort.add_benchmark(name, file)
    say(f"{made.title}: {made.problem_count:,} problems, version {made.content_hash[:8]}.")


@prompts.command("list")
def prompts_list() -> None:
    """List every version of every prompt set, the newest first."""
    with connected() as retort:
        found = list(retort.prompt_sets())
    showing.table(
        ("Set", "Name", "Prompts", "Version"),
        [(p.id, p.name, p.prompt_count, p.content_hash[:8]) for p in found],
    )


@prompts.command("add")
def prompts_add(
    name: Annotated[str, typer.Argument(help="What the set is to be called.")],
    file: Problems,
    like: Annotated[
        str, typer.Option(help="The benchmark whose columns and answers the file has.")
    ] = "math_500",
) -> None:
    """Add a prompt set, or another version of it; the same prompts add nothing."""
    with connected() as retort:
        made = retort.add_prompt_set(name, file, like=like)
    say(f"{made.name}: {made.prompt_count:,} prompts, version {made.content_hash[:8]}.")


@contest.command("list")
def contest_list() -> None:
    """List the contests that programs are rated by."""
    with connected() as retort:
        found = list(retort.contests())
    showing.table(
        ("Contest", "Name", "Rated participants", "Problems", "Ranked by"),
        [(c.contest_id, c.name, c.participants, c.problem_count, c.scoring) for c in found],
    )


@contest.command("add")
def contest_add(
    file: Annotated[Path, typer.Argument(help="A bundle: .json or .json.gz", dir_okay=False)],
    population: Annotated[
        bool, typer.Option("--population", help="The file holds ratings, for percentiles.")
    ] = False,
) -> None:
    """Add a contest bundle, as python -m evaluator import-contest writes it, or a population."""
    with connected() as retort:
        added = retort.add_contest(file, population=population)
    for each in added.contests:
        say(f"{each.name}: {each.participants:,} rated participants.")
    if added.population is not None:
        size = added.population.size
        say(f"Percentiles refer to {added.population.name}: {size:,} ratings.")
    if added.rated_again:
        say(f"Rated again: {added.rated_again:,}")


def install(app: typer.Typer) -> None:
    """Have ``app`` know these commands."""
    for name, commands in (("benchmark", benchmark), ("prompts", prompts), ("contest", contest)):
        app.add_typer(commands, name=name)
