"""Both ends of a stage's conversation, with real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]

SCRIPT = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from evaluator.child import serve
    from evaluator.errors import InputError, TransientEngineError

    class Handler:
        def __init__(self, spec, report):
            print("noise from a library")
            if spec.get("broken"):
                raise InputError("model: there is none.")
            report.ready(name="test")

        def run(self, request, report):
            print("more noise")
            if request.work.get("fail"):
                raise TransientEngineError("engine: try again.")
            report.progress(1, 2, unit="rows", tokens=3)
            return {"prefix": request.prefix, "accepted": list(request.accepted)}

    sys.exit(serve(Path(sys.argv[1]), {"test": Handler}))
    """
)


def start(tmp_path: Path, spec: dict[str, Any]) -> subprocess.Popen[str]:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec))
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def converse(child: subprocess.Popen[str], line: str = "") -> str:
    """What the child writes until it ends, its standard input held open as a worker does."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(line)
    child.stdin.flush()
    out = child.stdout.read()
    child.wait(timeout=60)
    return out


def shard(number: int, **work: Any) -> str:
    return json.dumps({"shard": number, "lease": "ab", "work": work, "accepted": ["s"]}) + "\n"


def test_shards_are_done_in_turn_and_only_events_reach_standard_output(tmp_path: Path) -> None:
    child = start(tmp_path, {"kind": "test"})
    out, err = child.communicate(shard(1) + shard(2) + '{"end": true}\n', timeout=60)
    events = [json.loads(line) for line in out.splitlines()]
    assert child.returncode == 0
    assert [event["event"] for event in events] == ["ready", "progress", "done", "progress", "done"]
    assert events[2] == {
        "event": "done",
        "shard": 1,
        "lease": "ab",
        "result": {"prefix": "00000001-ab", "accepted": ["s"]},
    }
    assert events[3]["shard"] == 2
    assert "noise from a library" in err


def test_a_failure_is_one_sentence_and_says_whether_to_try_again(tmp_path: Path) -> None:
    child = start(tmp_path, {"kind": "test"})
    out = converse(child, shard(1, fail=True))
    _, err = child.communicate()
    assert child.returncode == 1
    assert json.loads(out.splitlines()[-1]) == {
        "event": "failed",
        "shard": 1,
        "lease": "ab",
        "error": "engine: try again.",
        "transient": True,
    }
    assert "Traceback" in err


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"kind": "test", "broken": True}, "model: there is none."),
        ({"kind": "nonsense"}, "spec: kind 'nonsense' is not one of test."),
        ({}, "spec: kind None is not one of test."),
    ],
)
def test_a_stage_that_cannot_begin_says_why(
    tmp_path: Path, spec: dict[str, Any], sentence: str
) -> None:
    child = start(tmp_path, spec)
    event = json.loads(converse(child))
    child.communicate()
    assert child.returncode == 1
    assert (event["event"], event["error"]) == ("failed", sentence)
    assert event["transient"] is False


def test_a_child_whose_worker_died_kills_its_process_group(tmp_path: Path) -> None:
    child = start(tmp_path, {"kind": "test"})
    child.communicate(shard(1), timeout=60)  # closes standard input without the word "end"
    assert child.returncode == -signal.SIGKILL
