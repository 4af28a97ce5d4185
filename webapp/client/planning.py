"""Before and after a launch: what it would take, its recipe written out, where things come from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from webapp.client import models, showing
from webapp.client.errors import ClientError
from webapp.client.options import (
    AsJson,
    Benchmarks,
    Checkpoints,
    Devices,
    Engine,
    MaxTokens,
    Protocol,
    Recipe,
    Samples,
    StageDevices,
    connected,
    group,
    text_of,
)
from webapp.client.showing import say

estimate = group(
    "Say what a launch would take, and launch nothing: tokens, time, memory, money, each with what "
    "it rests on."
)


@estimate.command("distil")
def estimate_distil(
    recipe: Recipe,
    *,
    generate_devices: StageDevices = 1,
    train_devices: StageDevices = 1,
    evaluate_devices: StageDevices = 1,
) -> None:
    """What a distillation by a recipe would take."""
    with connected() as retort:
        figures = retort.estimate_distil(
            text_of(recipe), generate_devices=generate_devices, train_devices=train_devices,
            evaluate_devices=evaluate_devices,
        )  # fmt: skip
    _figures(figures)


@estimate.command("evaluate")
def estimate_evaluate(
    *,
    checkpoint: Checkpoints,
    benchmark: Benchmarks,
    protocol: Protocol = "quick",
    samples: Samples = None,
    max_tokens: MaxTokens = None,
    engine: Engine = "transformers",
    devices: Devices = 1,
) -> None:
    """How many completions an evaluation asks for, and for which figures."""
    with connected() as retort:
        plan = retort.estimate_evaluate(
            checkpoint, benchmark, protocol=protocol, samples=samples, max_tokens=max_tokens,
            engine=engine, devices=devices,
        )  # fmt: skip
    say(
        f"{plan.evaluations:,} evaluations, {plan.completions:,} completions of at most "
        f"{plan.max_tokens:,} tokens, at temperature {plan.temperature:g}"
    )
    showing.table(
        ("Benchmark", "n", "Completions each", "Figures"),
        [(c.benchmark, c.samples, c.completions, ", ".join(c.metrics)) for c in plan.columns],
    )
    _figures(plan.times)


def _figures(figures: Sequence[models.Figure]) -> None:
    for each in figures:
        say(f"{each.name}: {each.value}")
        say(f"    {each.basis}")


def recipe(
    recipe: Recipe,
    commands: Annotated[
        bool, typer.Option("--commands", help="As commands for the server's shell.")
    ] = False,
) -> None:
    """Write a recipe out with every default, as the server would keep it."""
    with connected() as retort:
        written = retort.written_recipe(text_of(recipe))
    for line in (written.commands if commands else written.yaml).splitlines():
        say(line)


def chats(
    file: Annotated[Path, typer.Argument(help="JSON lines, also .gz.", dir_okay=False)],
) -> None:
    """Send general chats; what is printed goes into a recipe, as corpus.general[].file."""
    with connected() as retort:
        say(retort.keep_chats(file))


def checkpoints(
    name: Annotated[str, typer.Option(help="A part of the name.")] = "",
    tag: Annotated[str, typer.Option(help="One of its tags.")] = "",
    most: Annotated[int, typer.Option(help="Rows at most.", min=1)] = 50,
) -> None:
    """List checkpoints, the newest first."""
    with connected() as retort:
        found = list(retort.checkpoints(most=most, name=name, tag=tag))
    showing.table(
        ("Checkpoint", "Name", "Project", "Owner", "Parameters", "Content"),
        [(c.id, c.name, c.project.name, c.owner, c.parameters, c.content_hash[:12])
         for c in found],
    )  # fmt: skip


def move(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="Its name.")],
    project: Annotated[int, typer.Option(help="Number of the project; see retort whoami.", min=1)],
) -> None:
    """Move a checkpoint to another project; you have to be an admin of both."""
    with connected() as retort:
        moved = retort.edit_checkpoint(retort.checkpoint(checkpoint).id, project=project)
    say(f"{moved.name} is in {moved.project.name} now.")


def lineage(
    run: Annotated[int | None, typer.Argument(metavar="RUN", help="A run's number.")] = None,
    checkpoint: Annotated[str, typer.Option(help="Or a checkpoint's name.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show where a run's results, or a checkpoint, come from and what came of them."""
    if (run is None) == (not checkpoint):
        raise ClientError("run: give either a run's number or --checkpoint NAME.")
    with connected() as retort:
        if run is not None:
            graph = retort.run_graph(run)
        else:
            graph = retort.checkpoint_graph(retort.checkpoint(checkpoint).id)
    if as_json:
        say(graph.model_dump_json())
        return
    names = {node.key: f"{node.role} {node.name}" for node in graph.nodes}
    sources: dict[str, list[str]] = {}
    for edge in graph.edges:
        sources.setdefault(edge.target, []).append(names[edge.source])
    showing.table(
        ("", "What", "Name", "", "Made from"),
        [("*" if n.here else "", n.role, n.name, n.note, "; ".join(sources.get(n.key, ())))
         for n in graph.nodes],
    )  # fmt: skip


def install(app: typer.Typer) -> None:
    """Have ``app`` know these commands."""
    app.add_typer(estimate, name="estimate")
    for command in (recipe, chats, checkpoints, move, lineage):
        app.command()(command)
