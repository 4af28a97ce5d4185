"""``python -m distiller card`` and ``export``: a student with what is known of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from distiller import card as cards
from distiller import checkpoints, corpus, exporting, lineage
from distiller.commands.console import RecipeFile, load_recipe
from distiller.errors import InputError
from distiller.lineage import Link
from distiller.local import written_whole
from distiller.recipe import Recipe
from evaluator.comparison import read_metrics

Student = Annotated[Path, typer.Argument(help="The student's folder.")]
Filtered = Annotated[
    Path | None, typer.Option(help="Folder of the filter command: funnel and corpus.")
]
Traces = Annotated[Path | None, typer.Option(help="Folder of the generate command.")]
Evaluations = Annotated[
    list[Path] | None,
    typer.Option("--evaluation", help="Folder of a graded run of this student; may be repeated."),
]
Licence = Annotated[str | None, typer.Option(help="Of the weights, an SPDX name as apache-2.0.")]
BaseLicence = Annotated[str | None, typer.Option(help="Of the base.")]
TeacherLicence = Annotated[str | None, typer.Option(help="Of the teacher's outputs.")]
PromptsLicence = Annotated[str | None, typer.Option(help="Of the prompts.")]


def card(
    student: Student,
    recipe: RecipeFile,
    *,
    out: Annotated[Path, typer.Option(help="The card to write: a .md file.")],
    filtered: Filtered = None,
    traces: Traces = None,
    evaluation: Evaluations = None,
    licence: Licence = None,
    base_licence: BaseLicence = None,
    teacher_licence: TeacherLicence = None,
    prompts_licence: PromptsLicence = None,
) -> None:
    """Write a student's model card: recipe, corpus, funnel, scores, licences, lineage."""
    rights = cards.Licences(licence, base_licence, teacher_licence, prompts_licence)
    text = _card(
        student, load_recipe(recipe), filtered=filtered, traces=traces,
        evaluations=evaluation or [], licences=rights,
    )  # fmt: skip
    with written_whole(out) as file:
        file.write(text.encode())
    print(f"card: {out}")


def export(
    student: Student,
    recipe: RecipeFile,
    *,
    out: Annotated[Path | None, typer.Option(help="A new folder, or a new file NAME.tar.")] = None,
    hub: Annotated[str | None, typer.Option(help="OWNER/NAME on the hub, instead.")] = None,
    private: Annotated[bool, typer.Option(help="Whether a new repository is private.")] = True,
    filtered: Filtered = None,
    traces: Traces = None,
    evaluation: Evaluations = None,
    licence: Licence = None,
    base_licence: BaseLicence = None,
    teacher_licence: TeacherLicence = None,
    prompts_licence: PromptsLicence = None,
) -> None:
    """Export a student with its model card, as a folder, a tar or to the hub."""
    if (out is None) == (hub is None):
        raise InputError("export: give either --out FOLDER (or FILE.tar) or --hub OWNER/NAME.")
    rights = cards.Licences(licence, base_licence, teacher_licence, prompts_licence)
    text = _card(
        student, load_recipe(recipe), filtered=filtered, traces=traces,
        evaluations=evaluation or [], licences=rights,
    )  # fmt: skip
    if hub is not None:
        print(exporting.to_hub(student, text, hub, private=private))
    elif out is not None:
        write = exporting.to_tar if out.suffix == ".tar" else exporting.to_folder
        print(f"exported: {write(student, text, out)}")


def _card(
    student: Path,
    recipe: Recipe,
    *,
    filtered: Path | None,
    traces: Path | None,
    evaluations: list[Path],
    licences: cards.Licences,
) -> str:
    info = checkpoints.inspect(student)
    note = checkpoints.note(student) or {}
    manifest: dict[str, Any] | None = note.get("corpus")
    funnel = None
    if filtered is not None:
        funnel = _json(filtered / "funnel.json")
        made = _json(filtered / "corpus" / corpus.MANIFEST)
        if manifest is not None and corpus.manifest_hash(manifest) != corpus.manifest_hash(made):
            raise InputError(f"filtered: {filtered} holds another corpus than the student's.")
        manifest = made
    drawn = {} if traces is None else _json(traces / "generation.json")
    chain = lineage.links(
        recipe,
        student=Link("student", student.name, info.content_hash),
        base=Link("base", Path(recipe.base).name, note.get("base")),
        teacher=Link("teacher", Path(recipe.teacher).name, None, _engine(drawn)),
        prompts=Link("prompts", recipe.prompts.set, drawn.get("prompts_hash")),
        manifest=manifest,
        manifest_hash=None if manifest is None else corpus.manifest_hash(manifest),
        funnel=funnel,
        tally=None if traces is None else _json(traces / "tally.json"),
    )
    scores = [_score(path, info.content_hash) for path in evaluations]
    return cards.render(
        student.name, info, recipe, chain, funnel=funnel, scores=scores, licences=licences
    )


def _score(folder: Path, content_hash: str) -> cards.Score:
    """A run's score; raises InputError where it measured another checkpoint than this one."""
    measured = Path(str(_json(folder / "run.json").get("checkpoint", "")))
    if not measured.is_dir() or checkpoints.content_hash(measured) != content_hash:
        raise InputError(
            f"evaluation: {folder} measured {measured}, which is not this student (or is there no "
            "more); give runs of the student itself."
        )
    return cards.Score.of(read_metrics(folder))


def _engine(drawn: dict[str, Any]) -> dict[str, str]:
    engine = drawn.get("engine", {})
    return {"engine": str(engine["name"])} if "name" in engine else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give the folder of a step.") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: must hold a JSON object; give the folder of a step.")
    return value
