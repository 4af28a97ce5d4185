"""``rate`` and ``import-contest``: a Codeforces rating from standings, and bundles for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evaluator import contest_import
from evaluator.commands.console import check_writable
from evaluator.contests import (
    Population,
    is_number,
    read_contest,
    read_population,
)
from evaluator.errors import InputError
from evaluator.rating import Mode
from evaluator.rating import rate as rate_score
from evaluator.store import write_durably
from evaluator.terminal import json_line


def rate(
    *,
    standings: Annotated[
        Path, typer.Option(help="A contest bundle or a file of standings: .json or .json.gz.")
    ],
    points: Annotated[float, typer.Option(help="Points won, or problems solved.")],
    penalty: Annotated[float, typer.Option(help="Penalty minutes; 0 where points alone rank.")] = 0,
    mode: Annotated[Mode, typer.Option(help="elo, or codeelo for CodeElo's own rule.")] = Mode.ELO,
    population: Annotated[
        Path | None,
        typer.Option(
            help="Ratings that the percentile refers to: a JSON list, or {rating: count}; "
            "default: this contest's participants."
        ),
    ] = None,
) -> None:
    """Print the place, performance rating and percentile of a score in one contest, as JSON."""
    for name, value in (("points", points), ("penalty", penalty)):
        if not is_number(value):
            raise InputError(f"{name}: {value} is no number within ±1e9; give one.")
    contest = read_contest(standings)
    named = (
        Population.of(f"participants of {contest.name}", contest.standings.ratings)
        if population is None
        else read_population(population)
    )
    found = rate_score(contest.standings, points, penalty, mode=mode)
    print(
        json_line(
            {
                "place": found.place,
                "rating": round(found.rating, 3),
                "clamped": found.clamped,
                "percentile": round(named.percentile(found.rating), 3),
                "population": named.name,
                "population_size": len(named.ratings),
                "participants": len(contest.standings),
                "mode": str(mode),
            }
        )
    )


def import_contest(
    *,
    standings: Annotated[
        Path, typer.Option(help="The site's answer to contest.standings, saved whole.")
    ],
    rating_changes: Annotated[Path, typer.Option(help="Its answer to contest.ratingChanges.")],
    output: Annotated[Path, typer.Option(help="Bundle to write: .json or .json.gz.")],
    problems: Annotated[
        Path | None,
        typer.Option(help="JSONL[.gz] of problems with tests; those of this contest are put in."),
    ] = None,
) -> None:
    """Write a contest bundle from the official API's answers, saved by you as files."""
    check_writable(output)
    zipped = contest_import.check_name(output)
    made = contest_import.make_bundle(standings, rating_changes, problems)
    write_durably(output, contest_import.encode(made.contest, zipped))
    with_tests = sum(each.problem is not None for each in made.contest.problems)
    print(
        json_line(
            {
                "contest": made.contest.id,
                "name": made.contest.name,
                "scoring": str(made.contest.scoring),
                "participants": len(made.contest.standings),
                "problems": len(made.contest.problems),
                "problems_with_tests": with_tests,
                "unrated_rows_left_out": made.unrated,
                "rated_without_row": made.missing,
            }
        )
    )
