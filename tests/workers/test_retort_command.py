"""The whole way by the ``retort`` command alone: a real server, a real worker, a real (tiny) model.

It takes longer than other tests, since three processes load torch one after the other.
"""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from evaluator.benchmarks import arithmetic
from tests.serving import ROOT, serving
from tests.webapp.models import HIDDEN, model_files, shapes, write
from webapp.api import tokens

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

_SECONDS = 240


@dataclass
class Shell:
    """A person's terminal, elsewhere: nothing of the server's environment is known there."""

    home: Path

    def retort(self, *command: str, text: str = "") -> str:
        """What a command prints that does its work."""
        done = subprocess.run(
            [ROOT / "scripts" / "retort", *command], input=text, cwd=self.home,
            capture_output=True, text=True, check=False, timeout=_SECONDS, env=self._environment,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def watched(self, *command: str) -> tuple[int, str, str]:
        """Exit code, what is printed, and what a terminal shows meanwhile."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [ROOT / "scripts" / "retort", *command], cwd=self.home, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=theirs, text=True, env=self._environment,
        )  # fmt: skip
        os.close(theirs)
        seen = b""
        while part := _read(ours):
            seen += part
        os.close(ours)
        printed, _ = process.communicate(timeout=_SECONDS)
        return process.returncode, printed, re.sub(r"\x1b\[[0-9;?]*\w", "", seen.decode())

    @property
    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "TERM": "xterm",
            "COLUMNS": "120", "XDG_CONFIG_HOME": str(self.home / "config"),
        }  # fmt: skip


def reading_model() -> dict[str, bytes]:
    """A whole model that reads bytes; its weights are zero, so that it writes any of them."""
    alphabet = {letter: at for at, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(alphabet, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tensors = shapes() | {"model.embed_tokens.weight": (len(alphabet), HIDDEN)}
    files = model_files(
        tensors=tensors, config={"vocab_size": len(alphabet), "max_position_embeddings": 2048}
    )
    return files | {"tokenizer.json": tokenizer.to_str().encode()}


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # as Linux says that the other side is closed
        return b""


def test_from_login_to_a_report(
    admin: Any,
    process_environment: dict[str, str],
    start_worker: Callable[..., Any],
    tmp_path: Path,
) -> None:
    shell = Shell(tmp_path)
    folder = write(tmp_path / "tiny", reading_model())
    problems = tmp_path / "problems.jsonl"
    problems.write_text(
        "".join(f"{json.dumps(each.to_json())}\n" for each in arithmetic.generate(4, seed=7))
    )
    _, secret = tokens.make(admin, name="laptop", scope="admin")
    with serving(process_environment) as port:
        start_worker()
        server = f"http://127.0.0.1:{port}"
        said = shell.retort("login", "--server", server, "--token-stdin", text=f"{secret}\n")
        assert "Signed in as root" in said
        assert "4 problems" in shell.retort("benchmark", "add", "arithmetic", str(problems))
        assert "tiny is checkpoint" in shell.retort("upload", str(folder))
        chosen = ["--checkpoint", "tiny", "--benchmark", "arithmetic"]
        chosen += ["--samples", "2", "--max-tokens", "8"]
        assert "8 completions" in shell.retort("estimate", "evaluate", *chosen)
        launched = shell.retort("launch", "evaluate", *chosen)
        [run] = re.findall(r"retort wait (\d+)", launched)
        code, printed, shown = shell.watched("wait", run, "--every", "0.2")
        assert code == 0, printed + shell.retort("log", run)
        assert printed == f"Run {run} finished\n"
        for stage in json.loads(shell.retort("runs", "--json"))[:1]:
            assert stage["state"] == "finished"
        assert "━" in shown  # a bar
        assert re.search(r"tiny on Arithmetic.*finished", shown), shown[-2000:]
        [score] = json.loads(shell.retort("scores", "--checkpoint", "tiny", "--json"))
        assert score["samples"] == 2
        assert 0 <= score["pass_at_1"] <= 1
        assert "Arithmetic" in shell.retort("lineage", "--checkpoint", "tiny")
        for form in ("html", "bundle"):
            shell.retort("report", str(score["id"]), "--form", form, "--out", f"report.{form}")
        assert "pass@1[avg-of-2]" in (tmp_path / "report.html").read_text()
        with zipfile.ZipFile(tmp_path / "report.bundle") as bundle:
            assert "manifest.json" in bundle.namelist()
        shell.retort("logout")
        assert not list((tmp_path / "config").rglob("login.json"))
