"""The commands as a user runs them: `manage.py …` in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher

ROOT = Path(__file__).resolve().parents[2]

Manage = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def manage(process_environment: dict[str, str]) -> Manage:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT, env=process_environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("import_benchmark", "nonsense", "x.jsonl"), "nonsense"),
        (("import_benchmark", "aime_2024", "/nowhere/x.jsonl"), "x.jsonl"),
        (("fetch_benchmark", "nonsense"), "nonsense"),
        (("import_prompts", "p", "/nowhere/x.jsonl"), "x.jsonl"),
        (("import_completions", "--benchmark", "b", "--checkpoint", "c", "x"), "createsuperuser"),
        (("up", "--workers", "-1"), "--workers"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    manage: Manage, arguments: tuple[str, ...], part: str
) -> None:
    done = manage(*arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert part in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_taken_port_is_refused(manage: Manage) -> None:
    """The web server would share the port: half of the requests would go elsewhere."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = manage("up", "--port", str(port), "--workers", "0")
    assert done.returncode == 2
    assert f"127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_prompts_are_imported(manage: Manage, tmp_path: Path) -> None:
    from webapp.benchmarks.models import PromptSet

    rows = [{"id": f"p{i}", "problem": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(5)]
    done = manage("import_prompts", "sums", write(tmp_path / "p.jsonl", *rows))
    assert done.returncode == 0, done.stderr
    assert PromptSet.objects.get(name="sums").prompt_count == 5


def test_completions_are_imported_graded_and_waited_for(
    manage: Manage, tmp_path: Path, admin: Any
) -> None:
    from evaluator.benchmarks import arithmetic
    from webapp.benchmarks.services import install_benchmark
    from webapp.runs.models import Evaluation

    problems = arithmetic.generate(10, seed=1)
    install_benchmark("arithmetic", problems, "a test")
    rows = [
        {"problem_id": p.id, "sample": 0, "completion": rf"\boxed{{{p.answer}}}"} for p in problems
    ]
    file = write(tmp_path / "c.jsonl", *rows)
    arguments = ("--benchmark", "arithmetic", "--checkpoint", "someone/model")
    done = manage("import_completions", file, *arguments)
    assert done.returncode == 0, done.stderr
    assert "waits for a worker" in done.stdout
    done = manage("import_completions", file, *arguments, "--wait")
    assert done.returncode == 0, done.stderr
    assert "pass@1[avg-of-1] 1.0000" in done.stdout
    assert Evaluation.objects.count() == 2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def processes_of(marker: str) -> dict[int, str]:
    """Live processes whose environment names ``marker``, and what serves the port it ends with.

    The web server writes its name over its environment.
    """
    found, served = {}, f"granian wsgi 127.0.0.1:{marker.rpartition('-')[2]} "
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                line = (folder / "cmdline").read_text().replace("\0", " ")
                if marker.encode() in (folder / "environ").read_bytes() or served in line:
                    found[int(folder.name)] = line
            except OSError:
                continue
    return found


@pytest.fixture
def up(process_environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    port = free_port()
    marker = f"up-on-{port}"
    process = subprocess.Popen(
        [sys.executable, "manage.py", "up", "--port", str(port), "--workers", "2"],
        cwd=ROOT, env=process_environment | {"LC_MARKER": marker}, start_new_session=True,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process, port, marker
    for pid in processes_of(marker):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    assert process.stderr is not None
    process.stderr.close()


def answer(port: int, path: str) -> Any:
    deadline = time.monotonic() + 60
    while True:
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10)
        except (URLError, ConnectionError):
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_serves_works_and_leaves_nothing_behind(
    up: tuple[subprocess.Popen[str], int, str], number: signal.Signals
) -> None:
    from webapp.runs.models import WorkerHeartbeat

    process, port, marker = up
    with answer(port, "/accounts/login/") as page:
        assert page.status == 200
        assert "script-src 'nonce-" in page.headers["Content-Security-Policy"]
        assert page.headers["X-Frame-Options"] == "DENY"
    with answer(port, "/static/css/retort.css") as sheet:
        assert sheet.status == 200
    deadline = time.monotonic() + 60
    while WorkerHeartbeat.objects.count() < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(timeout=40) == 0
    assert processes_of(marker) == {}
    assert not WorkerHeartbeat.objects.exists()


def test_up_killed_outright_leaves_nothing_behind(
    up: tuple[subprocess.Popen[str], int, str],
) -> None:
    process, port, marker = up
    answer(port, "/accounts/login/").close()
    process.kill()
    process.wait()
    deadline = time.monotonic() + 40
    while (left := processes_of(marker)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == {}


def test_up_gives_untrusted_programs_a_worker_of_few_rights(tmp_path: Path) -> None:
    import psycopg

    from webapp.config.embedded import Servers

    var, printed = tmp_path / "var", tmp_path / "stderr"
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG")}
    with printed.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "up", "--cpu", "--port", str(port)],
            cwd=ROOT, env=environment | {"RETORT_VAR": str(var)}, start_new_session=True,
            stderr=file,
        )  # fmt: skip
    try:
        answer(port, "/accounts/login/").close()
        with psycopg.connect(
            host=str(Servers(var).postgres_sockets), user="postgres", dbname="retort",
            autocommit=True,
        ) as connection:  # fmt: skip
            query = "SELECT name, queues FROM runs_workerheartbeat ORDER BY name"
            deadline = time.monotonic() + 60
            while len(found := connection.execute(query).fetchall()) < 2:
                assert time.monotonic() < deadline, found
                time.sleep(0.2)
            query = "SELECT usename FROM pg_stat_activity WHERE usename = 'retort_judge'"
            assert connection.execute(query).fetchone() is not None
            accounts = connection.execute("SELECT username, password, is_staff FROM core_user")
            [(name, kept, is_staff)] = accounts.fetchall()
        told = re.findall(r"Sign in as (\w+) with the password (\S+)", printed.read_text())
        assert is_staff
        assert [known for known, _ in told] == [name]
        assert PBKDF2PasswordHasher().verify(told[0][1], kept)  # the suite has a quicker one
        (plain, served), (judge, judged) = sorted(found, key=lambda row: row[1] == "judge")
        assert (served, judged) == ("gpu,cpu,upkeep", "judge")
        assert judge.startswith("judge:")
        assert not plain.startswith("judge:")
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0
