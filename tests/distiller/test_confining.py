"""Behind the wall: whatever a checkpoint's file gets to run sees its own folder and no more.

The worst is supposed: that the file runs any Python in the child. Each attempt prints HOLE where it
succeeded, and is run without the wall as well, so that it is known to be an attempt.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distiller import checkpoints, confining, verifying
from distiller.errors import CheckpointError
from tests.webapp.models import model_files, write

needs_bubblewrap = pytest.mark.skipif(
    bool(confining.why_not()), reason=f"children are not confined here: {confining.why_not()}"
)

ATTEMPTS = {
    "reads a file beside its folder": "open(PLANTED).read()",
    "reads what the product keeps": "open(ROOT + '/manage.py').read()",
    "reads accounts": "open('/etc/passwd').read()",
    "lists the checkout": "os.listdir(ROOT + '/webapp')",
    "looks at processes": "os.listdir('/proc/1')",
    "signals its parent's process": "os.kill(PARENT, 0)",
    "reaches a port of this host": "socket.create_connection(('127.0.0.1', PORT), 2)",
    "reaches a socket in a folder": "socket.socket(socket.AF_UNIX).connect(SOCKET)",
    "reaches an abstract socket": "socket.socket(socket.AF_UNIX).connect('\\0' + ABSTRACT)",
    "changes its own checkpoint": "open(FOLDER + '/config.json', 'a').close()",
    "changes the product": "open(ROOT + '/distiller/cli.py', 'a').close()",
    "changes a library": "open(LIBRARY, 'a').close()",
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What there is to reach: a planted file, listening sockets, a checkpoint."""
    planted = tmp_path / "planted"
    planted.write_text("secret")
    abstract = f"retort-{os.getpid()}-{tmp_path.name}"
    with (
        socket.create_server(("127.0.0.1", 0)) as port,
        socket.socket(socket.AF_UNIX) as named,
        socket.socket(socket.AF_UNIX) as unnamed,
    ):
        named.bind(os.path.relpath(tmp_path / "s", Path.cwd()))  # a name has 107 bytes at most
        unnamed.bind(f"\0{abstract}")
        for each in (named, unnamed):
            each.listen()
        yield {
            "PLANTED": str(planted), "ROOT": str(Path(confining.__file__).parents[1]),
            "PARENT": os.getpid(), "PORT": port.getsockname()[1],
            "SOCKET": str(tmp_path / "s"), "ABSTRACT": abstract,
            "FOLDER": str(write(tmp_path / "model", model_files())),
            "LIBRARY": pytest.__file__,
        }  # fmt: skip


def said(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


def wall_of_verification(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What stands before the child's command when a checkpoint is verified."""
    seen: list[list[str]] = []

    def noted(command: list[str], **_: Any) -> Any:
        seen.append(command)
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", noted)
        with pytest.raises(OSError):
            verifying.verify_in_child(folder)
    return seen[0][: seen[0].index(sys.executable)]


@needs_bubblewrap
@pytest.mark.parametrize("attempt", sorted(ATTEMPTS))
def test_what_a_hostile_file_runs_reaches_nothing(
    attempt: str, world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = "".join(f"{name} = {value!r}\n" for name, value in world.items())
    code = f"import os, socket\n{names}{ATTEMPTS[attempt]}\nprint('HOLE')"
    command = [sys.executable, "-c", code]
    assert "HOLE" in said(command), "no attempt at all"
    wall = wall_of_verification(Path(world["FOLDER"]), monkeypatch)
    assert "HOLE" not in said([*wall, *command])


@needs_bubblewrap
def test_a_checkpoint_is_verified_behind_the_wall(world: dict[str, Any]) -> None:
    folder = Path(world["FOLDER"])
    assert verifying.verify_in_child(folder) == checkpoints.inspect(folder)


SAID = {
    "architecture": "A", "parameters": 1, "size_bytes": 0, "dtype": "F32", "context_tokens": None,
    "has_chat_template": False,
}  # fmt: skip


@pytest.mark.parametrize("claimed", ["0" * 64, "../../elsewhere", ""])
def test_a_child_that_was_taken_over_passes_for_no_other_checkpoint(
    world: dict[str, Any], monkeypatch: pytest.MonkeyPatch, claimed: str
) -> None:
    """Its word would have been the address: another's weights, or another folder of the store."""
    folder = Path(world["FOLDER"])
    line = json.dumps(SAID | {"content_hash": claimed})
    monkeypatch.setattr(
        confining, "confined", lambda *_: [sys.executable, "-c", f"print({line!r})"]
    )
    found = verifying.verify_in_child(folder)
    assert found.content_hash == checkpoints.content_hash(folder)
    assert found.size_bytes == checkpoints.inspect(folder).size_bytes > 0
    assert found.architecture == "A"


@pytest.mark.parametrize(
    "line",
    ["", "no JSON", "[" * 5000, "[]", "{}", json.dumps(SAID), "null",
     json.dumps(SAID | {"content_hash": 7}), json.dumps(SAID | {"content_hash": "", "dtype": [1]})],
)  # fmt: skip
def test_a_child_that_says_something_else_is_a_refusal(
    world: dict[str, Any], monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setattr(
        confining, "confined", lambda *_: [sys.executable, "-c", f"print({line!r})"]
    )
    with pytest.raises(CheckpointError, match="said nothing of use"):
        verifying.verify_in_child(Path(world["FOLDER"]))


@needs_bubblewrap
def test_an_end_by_a_signal_is_told_from_a_refusal(
    world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bubblewrap tells of a signal by its exit code."""

    def dying(command: list[str], folder: Path) -> list[str]:
        return [*confining._wall(folder), sys.executable, "-c",
                "import os, signal; os.kill(os.getpid(), signal.SIGXCPU)"]  # fmt: skip

    monkeypatch.setattr(confining, "confined", dying)
    with pytest.raises(CheckpointError, match="chat template: does not end"):
        verifying.verify_in_child(Path(world["FOLDER"]))


@pytest.mark.parametrize("fault", ["none", "broken"])
def test_without_bubblewrap_there_are_the_limits_and_it_is_said(
    fault: str, world: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: no namespaces' >&2\nexit 1\n")
    broken.chmod(0o755)
    found = None if fault == "none" else str(broken)
    monkeypatch.setattr(shutil, "which", lambda name: found)
    confining.why_not.cache_clear()
    try:
        told = confining.confinement()
        assert told.startswith("with limits of time and memory only: ")
        assert ("no bubblewrap" if fault == "none" else "bwrap: no namespaces") in told
        command = [sys.executable, "-c", ""]
        assert confining.confined(command, Path(world["FOLDER"])) == command
        assert wall_of_verification(Path(world["FOLDER"]), monkeypatch) == []
    finally:
        confining.why_not.cache_clear()


@needs_bubblewrap
def test_nothing_of_the_host_is_shown_but_what_is_named() -> None:
    shown = confining._environment()
    assert all(path.is_dir() for path in shown)
    root = Path(confining.__file__).parents[1]
    home = Path.home()
    for secret in (root, root / "var", root / "webapp", home, Path("/"), Path("/etc")):
        assert not any(secret.is_relative_to(path) for path in shown)
