"""``python -m distiller generate``: the teacher answers the prompts."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from distiller.commands.console import RecipeFile, load_recipe
from distiller.generation import Tally
from distiller.local import Generation
from distiller.recipe import Recipe
from evaluator import engines, runner
from evaluator.commands.console import engine_options, progress_bar

EngineOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option", help="NAME=VALUE of the engine's own, as concurrency=128; may be repeated."
    ),
]
BaseUrl = Annotated[
    str | None, typer.Option(help="Engine openai: address, as http://127.0.0.1:8000/v1.")
]


def generate(
    recipe: RecipeFile,
    *,
    prompts: Annotated[Path, typer.Option(help="JSONL of problems: id, problem, answer.")],
    out: Annotated[Path, typer.Option(help="Folder of the traces; new, or one to go on with.")],
    base_url: BaseUrl = None,
    option: EngineOptions = None,
) -> None:
    """Draw the teacher's traces. Interrupt it at any time: started again, it goes on."""
    chosen = load_recipe(recipe)
    problems = runner.load_problems(prompts)[: chosen.prompts.limit]
    with closing(engines.create(engine_settings(chosen, base_url, option))) as engine:
        local = Generation.begin(out, recipe=chosen, problems=problems, engine=engine.describe())
        with progress_bar("generate", "traces") as bar:
            tally = local.draw(engine, bar)
    print_tally(tally, chosen)
    print(f"traces: {local.traces_file}")
    if tally.errors:
        print("incomplete: some samples failed; start it again to draw them.")


def engine_settings(
    recipe: Recipe, base_url: str | None, options: list[str] | None
) -> dict[str, Any]:
    """The recipe's engine with its teacher, as :func:`evaluator.engines.create` takes it."""
    plan = recipe.generation
    settings: dict[str, Any] = {"name": plan.engine, "model": plan.model or recipe.teacher}
    settings |= engine_options(options or [])
    address = base_url or plan.base_url
    return settings if address is None else settings | {"base_url": address}


def print_tally(tally: Tally, recipe: Recipe) -> None:
    """What was drawn, what of it is right, and what it cost."""
    table = Table("generated", "count", title=f"{tally.prompts} prompts")
    table.columns[1].justify = "right"
    share = tally.running_yield
    table.add_row("traces", f"{tally.traces:,}")
    table.add_row("verified traces", f"{tally.traces_verified:,}")
    table.add_row("prompts with a verified trace", f"{tally.prompts_verified:,}")
    table.add_row("yield", "–" if share is None else f"{100 * share:.1f} %")
    table.add_row("samples not needed", f"{tally.not_needed:,}")
    table.add_row("samples that failed", f"{tally.errors:,}")
    table.add_row("prompt tokens", f"{tally.prompt_tokens:,}")
    table.add_row("generated tokens", f"{tally.completion_tokens:,}")
    if tally.uncounted:
        table.add_row("traces without token counts", f"{tally.uncounted:,}")
    price = recipe.generation.price
    cost = tally.cost(price)
    if price is not None and cost is not None:
        least = "at least " if tally.uncounted else ""
        table.add_row("cost", f"{least}{cost:,.4f} {price.currency}")
    Console().print(table)
