"""The whole main job, as a user runs it: `manage.py demo` in its own process and a fresh folder.

The checkpoints it trains are then used to hold vLLM against transformers.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from evaluator.benchmarks import arithmetic
from evaluator.store import Store
from tests.e2e import chain
from tests.e2e.conftest import CHROMIUM
from tests.e2e.walking import sign_in

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def environment(var: Path) -> dict[str, str]:
    own = ("DATABASE_URL", "CELERY_BROKER_URL", "DJANGO_SETTINGS_MODULE")
    kept = {name: value for name, value in os.environ.items() if name not in own}
    return kept | {"RETORT_VAR": str(var), "DEMO_SERVE": "0"}


def processes_under(var: Path) -> list[str]:
    """Command lines of live processes that name ``var`` in arguments or environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            command = (folder / "cmdline").read_bytes()
            text = command + (folder / "environ").read_bytes()
        except OSError:
            continue
        if str(var).encode() in text:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    var = tmp_path_factory.mktemp("demo") / "var"
    done = subprocess.run(
        [sys.executable, "manage.py", "demo"],
        cwd=ROOT,
        env=environment(var),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    line = done.stdout.rstrip().splitlines()[-1]
    return var, json.loads(line)["demo"], done.stdout


def test_student_really_learns(demo: tuple[Path, dict[str, Any], str]) -> None:
    _, figures, _ = demo
    assert figures["base"]["pass@1"] < 0.05
    assert figures["student"]["pass@1"] >= 0.80
    # A vote may lose to a sample where the student is surely wrong, but not by much.
    assert figures["student"]["cons@16"] >= figures["student"]["pass@1"] - 0.02
    for role in ("base", "student", "teacher"):
        row = figures[role]
        assert 0 <= row["low"] <= row["pass@1"] <= row["high"] <= 1
    assert figures["seconds"] > 0


def test_report_and_password(demo: tuple[Path, dict[str, Any], str]) -> None:
    var, figures, output = demo
    report = Path(figures["report"])
    report = report if report.is_absolute() else ROOT / report
    assert report.is_relative_to(var)
    html = report.read_text()
    assert "pass@1[avg-of-16]" in html
    assert "cons@16" in html
    assert output.lower().count("password") == 1


def test_planted_contamination_is_found(demo: tuple[Path, dict[str, Any], str]) -> None:
    """The demo puts some of the benchmark's problems among its prompts; none may be trained on."""
    var, _, _ = demo
    (listed,) = (var / "files" / "runs").glob("*/*/*/contaminated.json")
    contaminated = json.loads(listed.read_text())["contaminated"]
    assert len(contaminated) >= 12
    ids = {row["problem_id"] for row in contaminated}
    kept = (listed.parent / "kept.jsonl").read_text().splitlines()
    assert kept
    assert not ids & {json.loads(row)["problem_id"] for row in kept}


def test_nothing_is_left_running(demo: tuple[Path, dict[str, Any], str]) -> None:
    var, _, _ = demo
    assert processes_under(var) == []


@pytest.mark.vllm
def test_vllm_agrees_with_transformers(
    demo: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    """Greedy accuracy of the demo's teacher through both engines, on the same held-out problems."""
    var, _, _ = demo
    teacher = var / "demo" / "teacher"
    problems = arithmetic.generate(128, seed=77, terms=3)
    file = tmp_path / "problems.jsonl"
    file.write_text("".join(json.dumps(problem.to_json()) + "\n" for problem in problems))
    texts: dict[str, dict[tuple[str, int], str]] = {}
    scores: dict[str, float] = {}
    for engine in ("transformers", "vllm"):
        out = tmp_path / engine
        command = [
            sys.executable, "-m", "evaluator", "run", "--benchmark", "arithmetic",
            "--problems", str(file), "--engine", engine, "--model", str(teacher),
            "--protocol", "greedy", "--samples", "1", "--out", str(out),
        ]  # fmt: skip
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        scores[engine] = json.loads((out / "metrics.json").read_text())["pass@1"]["value"]
        rows = Store(out / "segments").rows()
        texts[engine] = {(row["problem_id"], row["sample"]): row["text"] for row in rows}
    same = sum(text == texts["vllm"][key] for key, text in texts["transformers"].items())
    assert same >= 0.95 * len(problems)
    assert abs(scores["vllm"] - scores["transformers"]) <= 0.03
    assert scores["vllm"] > 0.8


@pytest.fixture
def served(demo: tuple[Path, dict[str, Any], str]) -> Iterator[str]:
    """The demo's installation, served with a worker by `manage.py up`; its address."""
    var, _, _ = demo
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "manage.py", "up", "--cpu", "--port", str(port)],
        cwd=ROOT, env=environment(var), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(address)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def wait_until_ready(address: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline, "the web server did not come up"
            time.sleep(0.2)


def uploaded_base(var: Path, folder: Path) -> Path:
    """The demo's base with other contents, so that it is a checkpoint of its own."""
    shutil.copytree(var / "demo" / "base", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"retort_note": "uploaded"}))
    return folder


def test_the_whole_chain_in_a_browser(
    demo: tuple[Path, dict[str, Any], str], served: str, tmp_path: Path
) -> None:
    var, _, output = demo
    password = re.search(r"with the password (\S+)", output)
    assert password is not None
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu"], viewport={"width": 1280, "height": 900},
            accept_downloads=True,
        )  # fmt: skip
        context.set_default_timeout(chain.PAGE_SECONDS * 1000)
        page = context.new_page()
        outside: list[str] = []
        context.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((served, "data:", "blob:", "file:"))
                else outside.append(request.url)
            ),
        )
        sign_in(page, served + "/", "admin", password[1])
        chain.upload_with_an_interruption(
            page, served, uploaded_base(var, tmp_path / "uploaded-base")
        )
        chain.launch(page, served)
        chain.watch(page)
        chain.compare(page)
        chain.dispute(page)
        chain.download_reports(page, tmp_path)
        assert outside == []
        context.close()
    checked = subprocess.run(
        [sys.executable, "-m", "evaluator", "verify-report", str(tmp_path / "report.zip")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr
