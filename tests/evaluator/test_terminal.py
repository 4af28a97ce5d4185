"""What files, models and strangers wrote is shown on a terminal, and never steers it."""

from __future__ import annotations

import base64
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from evaluator import bundle, signing
from evaluator.cli import main
from evaluator.commands.console import print_metrics
from evaluator.terminal import json_line

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STEERING = "fine\x1b[2J\x9b1A\nfake.zip is whole\r\u202e"


def test_a_bundle_writes_no_verdict_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What its maker wrote stands in a line of its own, before ours, and steers no terminal."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "report.json").write_text("{}")
    bundle.pack(folder, tmp_path / "b.zip", KEY, {"notice": STEERING * 99})
    monkeypatch.setattr("sys.argv", ["evaluator", "verify-report", str(tmp_path / "b.zip")])
    assert main() == 0
    lines = capsys.readouterr().out.split("\n")[:-1]
    assert all(line.replace("\t", "").isprintable() for line in lines)
    begins = ["its maker's notice: fine\\x1b", "b.zip is whole", "signed by\t", "The key came"]
    for line, begin in zip(lines, begins, strict=True):
        assert line.startswith(begin)
    assert len(lines[0]) < 2000


def test_a_name_in_a_manifest_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    listed = {STEERING: {"sha256": "", "bytes": 0}}
    (folder / bundle.PUBLIC_KEY).write_bytes(signing.public_pem(KEY))
    body = json.dumps({"schema": bundle.SCHEMA, "files": listed}).encode()
    (folder / bundle.MANIFEST).write_bytes(body)
    (folder / bundle.SIGNATURE).write_bytes(base64.b64encode(KEY.sign(body)))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    monkeypatch.setattr("sys.argv", ["evaluator", "verify-report", str(tmp_path / "b.zip")])
    assert main() == 2
    (line,) = capsys.readouterr().err.split("\n")[:-1]
    assert line.isprintable()
    assert line.startswith(r"b.zip: 'fine\x1b[2J")


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner, max_size=3)))
def test_a_line_of_json_says_the_same_and_steers_nothing(value: Any) -> None:
    line = json_line(value)
    assert line.isprintable()
    assert json.loads(line) == value


def test_scores_of_a_strangers_file_steer_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = dict.fromkeys(("low", "high", "se_total", "se_rerun"))
    told = {
        "benchmark": f"[red]{STEERING}", "samples": 1, "problems": 1, "complete": True,
        "pass@1": {"value": 0.5, **nothing}, "outcomes": {STEERING: 1},
        "tokens": dict.fromkeys(("mean", "median", "p95", "max")),
    }  # fmt: skip
    print_metrics(told)
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.split("\n"))
    assert "[red]" in out
