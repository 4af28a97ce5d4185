"""The ``retort`` command and its client against a server that really listens."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.webapp.api.conftest import SERVER
from tests.webapp.api.rows import World
from tests.webapp.models import model_files, write
from webapp.checkpoints import uploads
from webapp.checkpoints.models import Upload
from webapp.client import ClientError, Retort, cli, looking, options, sending
from webapp.client.settings import Settings, checked_server, settings_file
from webapp.leaderboard import reports
from webapp.leaderboard.models import Report
from webapp.runs.models import Run, Stage, State

ROOT = Path(__file__).resolve().parents[3]

# The server in a thread of this process, for what a test in one transaction could not show.
listening = pytest.mark.django_db(transaction=True)


@listening
def test_login_keeps_the_token_for_its_owner_only(
    signed_in_there: Settings, secret: str, monkeypatch: Any, capsys: Any
) -> None:
    path = settings_file()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["token"] == secret
    monkeypatch.setattr("sys.stdin", io.StringIO("retort_" + "x" * 43))
    assert cli.main(["login", "--server", signed_in_there.server, "--token-stdin"]) == 2
    assert "unknown, expired or revoked" in capsys.readouterr().err
    assert json.loads(path.read_text())["token"] == secret  # what is none is not kept
    assert cli.main(["logout"]) == 0
    assert not path.exists()


@pytest.mark.parametrize(
    "address", ["http://example.org", "ftp://a", "example.org", "https://u:p@example.org"]
)
def test_no_token_goes_where_others_could_read_it(address: str) -> None:
    with pytest.raises(ClientError):
        checked_server(address)


def test_a_redirect_takes_no_token_elsewhere() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(302, headers={"Location": "https://elsewhere.example/"})

    transport = httpx.MockTransport(answer)
    with (
        Retort("https://a.example", "t", transport=transport) as client,
        pytest.raises(ClientError, match="302"),
    ):
        client.me()
    assert asked == ["a.example"]


@pytest.mark.django_db
def test_who_and_what_is_listed(signed_in: None, world: World, capsys: Any) -> None:
    capsys.readouterr()
    assert cli.main(["whoami", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["username"] == "ada"
    assert cli.main(["runs", "--json", "--most", "2"]) == 0
    newest = Run.objects.order_by("-pk").values_list("pk", flat=True)[:2]
    assert [run["id"] for run in json.loads(capsys.readouterr().out)] == list(newest)
    assert cli.main(["runs", "--state", "running"]) == 0
    assert "own open" in capsys.readouterr().out


@pytest.mark.django_db
def test_pages_hold_each_row_once(signed_in: None, secret: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("webapp.client.api._PAGE", 2)
    with options.Retort(SERVER, secret) as retort:
        listed = [run.id for run in retort.runs()]
    assert listed == list(Run.objects.order_by("-pk").values_list("pk", flat=True))
    assert len(listed) > 2


@listening
def test_an_interrupted_upload_goes_on(
    signed_in_there: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    folder = write(tmp_path / "model", model_files())
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("not a model's")
    monkeypatch.setattr(sending, "PIECE_BYTES", 20_000)
    sent: list[int] = []
    original = sending._send_piece

    def breaks(client: Retort, file: Any, offset: int, piece: bytes) -> int:
        if len(sent) == 3:
            raise KeyboardInterrupt
        sent.append(len(piece))
        return original(client, file, offset, piece)

    monkeypatch.setattr(sending, "_send_piece", breaks)
    command = ["upload", str(folder), "--name", "mine", "--no-wait"]
    assert cli.main(command) == 130
    under_way = Upload.objects.get(name="mine")
    here = sum(file.offset_bytes for file in under_way.files.all())
    assert here == sum(sent) > 0

    def counts(client: Retort, file: Any, offset: int, piece: bytes) -> int:
        sent.append(len(piece))
        return original(client, file, offset, piece)

    monkeypatch.setattr(sending, "_send_piece", counts)
    begun = next(file for file in under_way.files.all() if file.offset_bytes)
    before = (folder / begun.path).stat().st_mtime
    os.utime(folder / begun.path, (before, before + 3600))  # another step of the same training
    assert cli.main(command) == 2
    assert f"{begun.path} was changed since its upload began" in capsys.readouterr().err
    os.utime(folder / begun.path, (before, before))
    assert cli.main(command) == 0
    under_way.refresh_from_db()
    assert under_way.state == Upload.State.CHECKING
    assert sum(sent) == sum(file.length_bytes for file in under_way.files.all())  # nothing twice
    for file in under_way.files.all():
        assert uploads.place_of(file).read_bytes() == (folder / file.path).read_bytes()
    assert not under_way.files.filter(path__contains="git").exists()


@pytest.mark.django_db
def test_other_files_under_the_same_name_need_a_word(
    signed_in: None, world: World, tmp_path: Path, capsys: Any
) -> None:
    folder = write(tmp_path / "model", model_files())
    uploads.begin(world.owner, "mine", [("config.json", 1), ("a.safetensors", 9)])
    command = ["upload", str(folder), "--name", "mine", "--no-wait"]
    assert cli.main(command) == 2
    assert "--fresh" in capsys.readouterr().err
    assert cli.main([*command, "--fresh"]) == 0


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("state", "code"), [(State.FINISHED, 0), (State.FAILED, 1), (State.CANCELLED, 3)]
)
def test_waiting_ends_as_the_run_does(
    signed_in: None, world: World, state: State, code: int, monkeypatch: Any
) -> None:
    key = world.keys["open_run"]
    looks = []

    def end(seconds: float) -> None:
        looks.append(seconds)
        Stage.objects.filter(run=key).update(state=state)
        Run.objects.filter(pk=key).update(state=state)

    monkeypatch.setattr("webapp.client.looking.time.sleep", end)
    assert cli.main(["wait", str(key)]) == code
    assert len(looks) == 1


@pytest.mark.django_db
def test_waiting_bears_a_server_that_is_away(
    signed_in: None, world: World, monkeypatch: Any, capsys: Any
) -> None:
    """It is upgraded, or the network is gone; a run may take days."""
    key = world.keys["open_run"]
    looks: list[float] = []
    answers = [None, 502, 503, 504, 429]
    there = Retort.run

    def run(client: Retort, key: int) -> Any:
        if looks and answers:
            raise ClientError("away", status=answers.pop())
        return there(client, key)

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if not answers:
            Run.objects.filter(pk=key).update(state=State.FINISHED)

    monkeypatch.setattr(Retort, "run", run)
    monkeypatch.setattr("webapp.client.looking.time.sleep", sleep)
    assert cli.main(["wait", str(key)]) == 0
    assert len(looks) == 6
    assert capsys.readouterr().err.count("asked again") == 1
    # What does not pass, and what does not end, is said.
    for status, most in ((403, 900.0), (502, 0.0)):
        monkeypatch.setattr(looking, "AWAY_SECONDS", most)
        Run.objects.filter(pk=key).update(state=State.RUNNING)
        looks.clear()
        answers[:] = [status] * 9
        assert cli.main(["wait", str(key)]) == 2
        assert len(looks) == 1
        assert "away" in capsys.readouterr().err


def test_what_the_server_says_steers_no_terminal(
    signed_in: None, world: World, capsys: Any
) -> None:
    hostile = "\x1b]0;owned\x07[red]x[/red]"
    Run.objects.filter(pk=world.keys["open_run"]).update(name=hostile)
    Stage.objects.filter(run=world.keys["open_run"]).update(log_tail=hostile)
    for command in (["runs"], ["log", str(world.keys["open_run"])]):
        assert cli.main(command) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "\x07" not in told
    assert "[red]x[/red]" in told


def test_cancelling_and_going_on(signed_in: None, world: World, capsys: Any) -> None:
    key = str(world.keys["open_run"])
    assert cli.main(["cancel", key]) == 0
    assert Run.objects.get(pk=key).state == State.CANCELLED
    assert cli.main(["cancel", key]) == 2
    assert "cancelled already" in capsys.readouterr().err
    assert cli.main(["retry", key]) == 0
    assert Run.objects.get(pk=key).state == State.QUEUED


def test_launching_by_names(signed_in: None, world: World, tmp_path: Path, capsys: Any) -> None:
    options = ["--checkpoint", "own-model", "--benchmark", "arithmetic", "--samples", "2"]
    assert cli.main(["launch", "evaluate", *options]) == 0
    run = Run.objects.order_by("-pk")[0]
    assert f"Run {run.pk}" in capsys.readouterr().out
    assert run.evaluations.get().samples == 2
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: r\nteacher: own-model\nbase: own-other\nstudent: s\nbogus: 1\n")
    assert cli.main(["launch", "distil", str(recipe)]) == 2
    assert "recipe." in capsys.readouterr().err


def test_scores_and_comparison(signed_in: None, world: World, capsys: Any) -> None:
    capsys.readouterr()
    assert cli.main(["scores", "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    assert {each["id"] for each in scored} == {world.keys["evaluations"], world.keys["other"]}
    assert cli.main(["scores", "--csv", "--checkpoint", "own-model"]) == 0
    assert capsys.readouterr().out.count("\r\n") == 2
    pair = [str(world.keys["evaluations"]), str(world.keys["other"])]
    assert cli.main(["compare", *pair, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == 6


def test_reports_are_written_whole(
    signed_in: None, world: World, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    key = str(world.keys["evaluations"])
    target = tmp_path / "r.json"
    assert cli.main(["report", key, "--form", "json", "--out", str(target)]) == 0
    assert json.loads(target.read_text())["benchmark"] == "Arithmetic"

    def make(seconds: float) -> None:
        for row in Report.objects.filter(state=Report.State.QUEUED, form="zip"):
            reports.make(row.pk)

    monkeypatch.setattr("webapp.client.looking.time.sleep", make)
    bundle = tmp_path / "r.zip"
    assert cli.main(["report", key, "--form", "bundle", "--out", str(bundle)]) == 0
    assert bundle.read_bytes()[:2] == b"PK"
    assert cli.main(["report", "999999", "--out", str(tmp_path / "none")]) == 2
    assert sorted(path.name for path in tmp_path.glob("*none*")) == []


def test_the_launcher_works_from_anywhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "retort", "runs"], cwd=tmp_path, capture_output=True, text=True,
        check=False, env={"XDG_CONFIG_HOME": str(tmp_path), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "No token is known; run retort login, or set RETORT_TOKEN.\n"


def test_the_client_loads_no_django() -> None:
    program = "import sys, webapp.client.cli; print(sorted({'django', 'torch'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
