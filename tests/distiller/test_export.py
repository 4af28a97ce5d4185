"""The model card, the lineage in it, and the three ways out."""

from __future__ import annotations

import base64
import json
import resource
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from distiller import card, exporting, lineage
from distiller.checkpoints import content_hash, inspect
from distiller.errors import CheckpointError, InputError
from distiller.exporting import HubError
from distiller.lineage import Link
from distiller.recipe import Recipe
from tests.distiller.samples import recipe

MANIFEST = {"examples": 812, "problems": 700, "tokens": 9000, "supervised_tokens": 8000}
FUNNEL = {"steps": [
    {"step": "drawn", "kept": 1000, "dropped": 0, "reasons": {}},
    {"step": "answer", "kept": 812, "dropped": 188, "reasons": {"no_answer": 8, "wrong": 180}},
]}  # fmt: skip
TALLY = {"traces": 1000, "prompts": 250, "prompts_verified": 240, "completion_tokens": 30_000}
SCORE = card.Score("arithmetic", 16, 0.915, 0.9, 0.93, "ab" * 32)


def chain(chosen: Recipe, **known: Any) -> list[Link]:
    return lineage.links(
        chosen,
        student=Link("student", "s"), base=Link("base", "org/base", "b" * 64),
        teacher=Link("teacher", "R1 | <b>"), prompts=Link("prompts", "sums"), **known,
    )  # fmt: skip


def render(tiny: Path, chosen: Recipe, **more: Any) -> str:
    known = {"manifest": MANIFEST, "manifest_hash": "c" * 64, "funnel": FUNNEL, "tally": TALLY}
    return card.render("student", inspect(tiny), chosen, chain(chosen, **known), **more)


def test_the_card_holds_what_was_measured_counted_and_allowed(tiny_qwen: Path) -> None:
    chosen = recipe(filters=[{"name": "answer", "parameters": {"grader": "integer"}}])
    rights = card.Licences(weights="apache-2.0")
    text = render(tiny_qwen, chosen, funnel=FUNNEL, scores=[SCORE], licences=rights)
    head = yaml.safe_load(text.split("---")[1])
    assert head["license"] == "apache-2.0"
    assert head["base_model"] == "org/base"
    assert "91.5 %" in text
    assert "90.0–93.0 %" in text
    assert SCORE.measurement_hash in text
    assert "| answer | 812 | 188 | no_answer 8, wrong 180 |" in text
    assert "812 examples" in text
    assert "prompts with a verified trace: 96.0 %" in text
    assert "the teacher's outputs: not stated" in text
    assert "R1 \\| &lt;b&gt;" in text
    assert json.loads(text.split("```json\n")[1].split("\n```")[0]) == chosen.model_dump(
        mode="json"
    )
    assert "not decontaminated" not in text


def test_the_card_says_what_is_missing_and_what_was_switched_off(tiny_qwen: Path) -> None:
    chosen = recipe(decontaminate=False, filters=[])
    text = card.render("s", inspect(tiny_qwen), chosen, chain(chosen))
    assert "It has not been measured." in text
    assert "was not decontaminated" in text
    assert "decontamination: OFF" in text
    assert "| traces | not known |" in text
    incomplete = card.Score("aime", 64, None, None, None, "0" * 64)
    assert "incomplete" in render(tiny_qwen, chosen, scores=[incomplete])


def test_lineage_runs_from_the_student_to_the_prompts() -> None:
    one, other = recipe(), recipe(decontaminate=False)
    roles = [link.role for link in chain(one)]
    assert roles == [
        "student", "base", "corpus", "filter settings", "traces", "teacher", "prompts"
    ]  # fmt: skip
    assert chain(one)[3].content_hash != chain(other)[3].content_hash
    assert chain(one)[3].content_hash == chain(recipe(training={"epochs": 9}))[3].content_hash


def test_a_folder_and_a_tar_hold_the_checkpoint_and_the_card(
    tiny_qwen: Path, tmp_path: Path
) -> None:
    out = exporting.to_folder(tiny_qwen, "# card", tmp_path / "out")
    assert (out / "README.md").read_text() == "# card"
    (out / "README.md").unlink()
    assert content_hash(out) == content_hash(tiny_qwen)
    tars = [exporting.to_tar(tiny_qwen, "# card", tmp_path / f / "s.tar") for f in "ab"]
    assert tars[0].read_bytes() == tars[1].read_bytes()
    with tarfile.open(tars[0]) as packed:
        packed.extractall(tmp_path / "un", filter="data")
    assert (tmp_path / "un" / "s" / "README.md").read_text() == "# card"
    assert inspect(tmp_path / "un" / "s").parameters == inspect(tiny_qwen).parameters
    for write in (exporting.to_folder, exporting.to_tar):
        with pytest.raises(InputError, match="there already"):
            write(tiny_qwen, "", tmp_path / "out")


def test_a_torn_checkpoint_is_not_exported(tmp_path: Path) -> None:
    (tmp_path / "torn").mkdir()
    for write in (exporting.to_folder, exporting.to_tar):
        with pytest.raises(CheckpointError):
            write(tmp_path / "torn", "", tmp_path / "out.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["torn"]


@pytest.mark.parametrize("name", ["out", "out.tar"])
def test_a_full_disk_leaves_nothing(name: str, tiny_qwen: Path, tmp_path: Path) -> None:
    recipe_file = tmp_path / "r.json"
    recipe_file.write_text(recipe().model_dump_json())

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    done = subprocess.run(
        [sys.executable, "-m", "distiller", "export", str(tiny_qwen), str(recipe_file), "--out",
         str(tmp_path / name)],
        capture_output=True, text=True, check=False, preexec_fn=limit,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("disk: no room")
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_the_score_of_another_checkpoint_is_refused(tiny_qwen: Path, tmp_path: Path) -> None:
    from distiller.commands.export import _score

    pass_at_1 = {"value": 0.5, "low": 0.4, "high": 0.6}
    metrics = {"benchmark": "arithmetic", "complete": True, "measurement_hash": "a" * 64,
               "per_problem": [], "samples": 4, "pass@1": pass_at_1}  # fmt: skip
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "run.json").write_text(json.dumps({"checkpoint": str(tiny_qwen)}))
    assert _score(tmp_path, content_hash(tiny_qwen)).value == 0.5
    for wrong, digest in ((tiny_qwen, "0" * 64), (tmp_path / "gone", content_hash(tiny_qwen))):
        (tmp_path / "run.json").write_text(json.dumps({"checkpoint": str(wrong)}))
        with pytest.raises(InputError, match="not this student"):
            _score(tmp_path, digest)


@pytest.fixture
def hub() -> Iterator[tuple[str, dict[str, Any]]]:
    """As much of the hub as a push of small files needs; what it was sent, by path."""
    seen: dict[str, Any] = {"files": {}}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer: dict[str, Any] = {}
            if self.path.endswith("/repos/create"):
                seen["repo"] = json.loads(body)
                answer = {"url": "https://huggingface.co/ada/student", "name": "ada/student"}
            elif "/preupload/" in self.path:
                names = [file["path"] for file in json.loads(body)["files"]]
                files = [
                    {"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names
                ]
                answer = {"files": files}
            elif "/commit/" in self.path:
                for line in body.splitlines():
                    row = json.loads(line)
                    if row["key"] == "file":
                        value = row["value"]
                        seen["files"][value["path"]] = base64.b64decode(value["content"])
                answer = {
                    "commitUrl": "https://huggingface.co/ada/student/commit/1",
                    "commitOid": "1",
                }
            raw = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_push_sends_every_file_and_the_card(
    tiny_qwen: Path, hub: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    address, seen = hub
    url = exporting.to_hub(tiny_qwen, "# card", "ada/student", endpoint=address, private=True)
    assert url.endswith("/commit/1")
    assert "private" in json.dumps(seen["repo"])
    assert seen["files"].pop("README.md") == b"# card"
    assert seen["files"] == {
        path.name: path.read_bytes() for path in tiny_qwen.iterdir() if path.name != "README.md"
    }


def test_a_hub_that_is_not_there_is_one_sentence(tiny_qwen: Path) -> None:
    with pytest.raises(HubError, match="could not be pushed") as caught:
        exporting.to_hub(tiny_qwen, "", "ada/s", endpoint="http://127.0.0.1:9", private=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no OWNER/NAME"):
        exporting.to_hub(tiny_qwen, "", "a/b/c d", endpoint="http://127.0.0.1:9", private=True)
