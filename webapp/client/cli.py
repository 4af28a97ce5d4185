"""The ``retort`` command: what the pages do, from a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from webapp.client import adding, looking, planning, sending, settings, showing
from webapp.client.api import Retort
from webapp.client.errors import ClientError
from webapp.client.models import Upload
from webapp.client.options import (
    AsJson,
    Benchmarks,
    Checkpoints,
    Devices,
    Engine,
    MaxTokens,
    Priority,
    Project,
    Protocol,
    Recipe,
    RunKey,
    Samples,
    StageDevices,
    connected,
    group,
    text_of,
)
from webapp.client.showing import percent, say

_HELP = """Talk to a Retort server: bring checkpoints in, launch runs, wait for them, read scores.

\b
  retort login --server https://retort.example.org
  retort upload ./my-checkpoint --name me/my-checkpoint
  retort estimate evaluate --checkpoint me/my-checkpoint --benchmark aime_2024
  retort launch evaluate --checkpoint me/my-checkpoint --benchmark aime_2024
  retort wait 17
  retort scores --benchmark aime_2024
  retort report 31 --form pdf

RETORT_SERVER and RETORT_TOKEN stand before what login kept. Exit codes: 0 done, 1 the run failed,
2 it cannot be done, 3 the run was cancelled, 130 interrupted.
"""

app = typer.Typer(
    help=_HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
launch = group("Launch a run.")
app.add_typer(launch, name="launch")

END_CODES = {"finished": 0, "failed": 1, "cancelled": 3}
_AT_ONCE = ("html", "json", "csv", "parquet")
_POLL_SECONDS = 2.0


@app.command()
def login(
    server: Annotated[str, typer.Option(help="The server's address.")] = settings.SERVER,
    token_stdin: Annotated[
        bool, typer.Option("--token-stdin", help="Read the token from standard input.")
    ] = False,
) -> None:
    """Keep a server's address and a token, which is made on its page API tokens."""
    address = settings.checked_server(server)
    if token_stdin:
        token = sys.stdin.readline().strip()
    else:
        say(f"Make a token at {address}/accounts/tokens/ and paste it here; it is not shown.")
        token = typer.prompt("Token", hide_input=True).strip()
    if not token.isascii() or not token.isprintable() or not token:
        raise ClientError("token: give the token as the page showed it, in one line.")
    with Retort(address, token) as retort:
        me = retort.me()
    path = settings.save(settings.Settings(address, token))
    say(f"Signed in as {me.username} with scope {me.scope}; kept in {path}.")


@app.command()
def logout() -> None:
    """Forget what login kept; the token itself lives on until it is revoked."""
    say("Forgotten." if settings.forget() else "Nothing was kept.")


@app.command()
def whoami(as_json: AsJson = False) -> None:
    """Who the token speaks for, and in which projects."""
    with connected() as retort:
        me = retort.me()
    if as_json:
        say(me.model_dump_json())
        return
    say(f"{me.username}{' (administrator)' if me.administrator else ''}, scope {me.scope}")
    showing.table(("Project", "Name", "Role"), [(p.id, p.name, p.role) for p in me.projects])


@app.command()
def upload(
    folder: Annotated[Path, typer.Argument(help="As transformers saves a model.")],
    name: Annotated[str, typer.Option(help="What the checkpoint is called there.")] = "",
    project: Project = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Discard what came before under this name.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait until it is verified.")] = True,
) -> None:
    """Send a checkpoint's folder; interrupted, the same command goes on where it was."""
    name = name or folder.resolve().name
    files = sending.files_of(folder)
    with connected() as retort:
        if fresh:
            for each in retort.uploads():
                if each.name == name:
                    retort.discard_upload(each.id)
        begun = sending.begin_or_go_on(retort, name, folder, files, project)
        with showing.byte_bar(name, sum(files.values())) as arrived:
            sending.send(retort, begun, folder, arrived)
        _taken_in(retort, retort.finish_upload(begun.id), wait=wait)


@app.command()
def fetch(
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="A model on the hub.")],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit; main without it.")] = "",
    name: Annotated[str, typer.Option(help="What it is called there; else as on the hub.")] = "",
    project: Project = None,
    wait: Annotated[bool, typer.Option(help="Wait until it is verified.")] = True,
) -> None:
    """Have the server fetch a checkpoint from the hub; nothing goes through this machine."""
    with connected() as retort:
        begun = retort.fetch_from_hub(repository, revision=revision, name=name, project=project)
        _taken_in(retort, begun, wait=wait)


def _taken_in(retort: Retort, upload: Upload, *, wait: bool) -> None:
    """Say what became of an upload, whose pieces are there or are the server's to fetch."""
    while wait and upload.state in ("fetching", "checking"):
        upload = looking.again(partial(retort.upload, upload.id), _POLL_SECONDS)
    if upload.state == "refused":
        raise ClientError(f"It was refused: {upload.reason}")
    if upload.checkpoint is not None:
        say(f"{upload.name} is checkpoint {upload.checkpoint}.")
    elif upload.state == "fetching":
        say("A worker fetches it next; retort checkpoints lists it when it is verified.")
    else:
        say("All of it is there; a worker verifies it next.")


# --- runs


@launch.command()
def distil(
    recipe: Recipe,
    *,
    project: Project = None,
    priority: Priority = 0,
    generate_devices: StageDevices = 1,
    train_devices: StageDevices = 1,
    evaluate_devices: StageDevices = 1,
) -> None:
    """Distil by a recipe: draw traces, filter, train, measure."""
    with connected() as retort:
        run = retort.distil(
            text_of(recipe), project=project, priority=priority, generate_devices=generate_devices,
            train_devices=train_devices, evaluate_devices=evaluate_devices,
        )  # fmt: skip
    _launched(run.id, run.name)


@launch.command()
def check(recipe: Recipe, project: Project = None) -> None:
    """Only check a recipe, as a distillation by it begins."""
    with connected() as retort:
        run = retort.check(text_of(recipe), project=project)
    _launched(run.id, run.name)


@launch.command()
def evaluate(
    *,
    checkpoint: Checkpoints,
    benchmark: Benchmarks,
    protocol: Protocol = "quick",
    samples: Samples = None,
    max_tokens: MaxTokens = None,
    engine: Engine = "transformers",
    devices: Devices = 1,
    project: Project = None,
    priority: Priority = 0,
) -> None:
    """Measure each checkpoint on each benchmark."""
    with connected() as retort:
        run = retort.evaluate(
            checkpoint, benchmark, protocol=protocol, samples=samples, max_tokens=max_tokens,
            engine=engine, devices=devices, project=project, priority=priority,
        )  # fmt: skip
    _launched(run.id, run.name)


@launch.command("import")
def import_completions(
    file: Annotated[Path, typer.Argument(help="JSON lines, also .gz.", dir_okay=False)],
    checkpoint: Annotated[str, typer.Option(help="Who wrote them: a name of its own.")],
    benchmark: Annotated[str, typer.Option(help="What they answer.")],
    project: Project = None,
) -> None:
    """Have completions graded that were made elsewhere.

    A line is an object with problem_id, completion and, where there are several, sample.
    """
    with connected() as retort:
        run = retort.import_completions(file, checkpoint, benchmark, project=project)
    _launched(run.id, run.name)


def _launched(key: int, name: str) -> None:
    say(f"Run {key}: {name}")
    say(f"Wait for it: retort wait {key}")


@app.command()
def runs(
    state: Annotated[str, typer.Option(help="queued, running, finished, failed, cancelled")] = "",
    owner: Annotated[str, typer.Option(help="A user name.")] = "",
    most: Annotated[int, typer.Option(help="Rows at most.", min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first."""
    with connected() as retort:
        found = list(retort.runs(most=most, state=state, owner=owner))
    if as_json:
        say(json.dumps([json.loads(each.model_dump_json()) for each in found]))
        return
    showing.table(
        ("Run", "Name", "State", "Done", "Stage", "Owner"),
        [(r.id, r.name, r.state, percent(r.fraction), r.stage, r.owner) for r in found],
    )


@app.command()
def wait(
    run: RunKey,
    every: Annotated[float, typer.Option(help="Seconds between looks.", min=0.1)] = _POLL_SECONDS,
) -> None:
    """Wait for a run's end with a bar for each stage; the exit code says how it ended."""
    with connected() as retort, showing.stage_bars() as show:
        found = retort.run(run)
        show(found)
        while not found.final:
            found = looking.again(lambda: retort.run(run), every)
            show(found)
    say(f"Run {run} {found.state}{f': {found.error}' if found.error else ''}")
    raise typer.Exit(END_CODES[found.state])


@app.command()
def log(run: RunKey) -> None:
    """Show the last lines of a run's stages."""
    with connected() as retort:
        for each in retort.log(run):
            say(f"== {each.title}")
            for line in each.log_tail.splitlines():
                say(line)


@app.command()
def cancel(run: RunKey) -> None:
    """Cancel a run."""
    with connected() as retort:
        retort.cancel(run)
    say(f"Run {run} is cancelled.")


@app.command()
def retry(run: RunKey) -> None:
    """Go on with a run that ended; what was accepted is not done again."""
    with connected() as retort:
        retort.retry(run)
    say(f"Run {run} goes on.")


# --- figures


@app.command()
def scores(
    benchmark: Annotated[str, typer.Option(help="A benchmark's name.")] = "",
    checkpoint: Annotated[str, typer.Option(help="A checkpoint's name.")] = "",
    most: Annotated[int, typer.Option(help="Rows at most.", min=1)] = 100,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV, for a spreadsheet.")] = False,
) -> None:
    """Show scored evaluations, the newest first."""
    with connected() as retort:
        found = list(
            retort.evaluations(most=most, scored=True, benchmark=benchmark, checkpoint=checkpoint)
        )
    if as_json:
        say(json.dumps([json.loads(each.model_dump_json()) for each in found]))
        return
    header = ("Evaluation", "Checkpoint", "Benchmark", "n", "pass@1")
    rows: list[tuple[Any, ...]] = [
        (e.id, e.checkpoint, e.benchmark, e.samples, e.pass_at_1) for e in found
    ]
    if as_csv:
        showing.csv_rows(header, rows)
    else:
        showing.table(header, [(*row[:-1], percent(row[-1])) for row in rows])


@app.command()
def compare(
    evaluations: Annotated[list[int], typer.Argument(help="Two to eight numbers.")],
    base: Annotated[int | None, typer.Option(help="The baseline's number.")] = None,
    as_json: AsJson = False,
) -> None:
    """Set evaluations side by side on the problems that they share."""
    with connected() as retort:
        found = retort.compare(evaluations, base)
    if as_json:
        say(found.model_dump_json())
        return
    showing.table(
        ("", "Evaluation", "Name", "pass@1", "95 % interval", "Against the baseline"),
        [
            (s.letter, s.evaluation, s.name, percent(s.value), showing.interval(s.low, s.high),
             "baseline" if s.baseline else s.contrast.verdict if s.contrast else "")
            for s in found.scores
        ],
    )  # fmt: skip
    for sentence in found.sentences:
        say(sentence)


@app.command()
def report(
    evaluation: Annotated[int, typer.Argument(help="The evaluation's number.", min=1)],
    form: Annotated[
        Literal["pdf", "html", "json", "csv", "parquet", "bundle"], typer.Option(help="Which form.")
    ] = "html",
    out: Annotated[Path | None, typer.Option(help="The file to write.", dir_okay=False)] = None,
    every: Annotated[float, typer.Option(help="Seconds between looks.", min=0.1)] = _POLL_SECONDS,
) -> None:
    """Write an evaluation's report to a file; a bundle is signed and holds everything."""
    kind = "zip" if form == "bundle" else form
    target = out or Path(f"evaluation-{evaluation}.{kind}")
    with connected() as retort:
        path = f"/evaluations/{evaluation}/report/{kind}"
        if kind not in _AT_ONCE:
            made = retort.ask_report(evaluation, kind)
            while made.state == "queued":
                found = looking.again(lambda: retort.reports(evaluation), every)
                made = next((each for each in found if each.id == made.id), made)
            if made.state == "failed":
                raise ClientError(f"The report could not be made: {made.error}")
            path = f"/evaluations/{evaluation}/reports/{made.id}/file"
        size = retort.download(path, target)
    say(f"{target}: {size:,} bytes")


planning.install(app)
adding.install(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code. What goes wrong is one sentence on standard error."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="retort")
    except SystemExit as ended:  # typer has said why
        return ended.code if isinstance(ended.code, int) else 0
    except ClientError as error:
        showing.complain(error.sentence)
        return 2
    return 0
