"""Two hosts, each with a data folder and a network of its own, and what may break between them.

Each scene sets up PostgreSQL, a broker and two workers over TCP with passwords (about 20 s).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.evaluator import programs
from tests.hosts import distilling
from tests.hosts.scene import PROBLEMS, SAMPLES

ROOT = Path(__file__).resolve().parents[2]


def play(*options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.hosts.scene", *options],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=400,
        env={k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def assert_whole(told: dict[str, Any]) -> None:
    drawn = told["drawn"]
    assert told["ended_early"] == []
    assert drawn["state"] == "finished", drawn["error"]
    assert drawn["wrong"] == []
    assert drawn["kept"]
    assert sum(drawn["metrics"]["outcomes"].values()) == PROBLEMS * SAMPLES


def test_a_host_that_dies_loses_nothing_and_two_hosts_score_as_one() -> None:
    told = play("--broker", "redis", "--fault", "kill-host", "--replays")
    assert told["alone"]["state"] == "finished", told["alone"]["error"]
    assert told["together"]["rows"] == told["alone"]["rows"]
    assert told["together"]["metrics"] == told["alone"]["metrics"]
    assert len(told["alone"]["rows"]) == PROBLEMS * SAMPLES
    assert_whole(told)


def test_a_host_that_is_cut_off_is_replaced_and_comes_back() -> None:
    """Also when a transaction of its holds locks (25 s more: the server's patience with a line)."""
    told = play("--broker", "redis", "--fault", "cut-host")
    assert_whole(told)


def test_rabbitmq_is_a_doorbell_too_and_may_be_killed() -> None:
    told = play("--broker", "rabbitmq", "--fault", "kill-broker")
    assert_whole(told)
    assert told["drawn"]["hosts"] == ["alpha", "beta"]


def test_hosts_that_share_no_disk_work_through_a_bucket() -> None:
    told = play("--broker", "redis", "--fault", "kill-host", "--bucket", "--replays")
    assert told["together"]["metrics"] == told["alone"]["metrics"]
    assert told["together"]["rows"] == told["alone"]["rows"]
    assert_whole(told)


def test_programs_are_judged_by_a_host_without_a_disk_or_a_right_to_any_table() -> None:
    told = play("--judge")
    assert told["state"] == "finished", told["error"]
    assert (told["queue"], told["hosts"], told["ended_early"]) == ("judge", ["judge:beta"], [])
    kinds = {
        (problem, sample): kind
        for problem, kinds in programs.SAMPLES.items()
        for sample, kind in enumerate(kinds)
    }
    judged = {(problem, sample): verdict for problem, sample, verdict in told["judged"]}
    assert len(told["judged"]) == len(judged) == len(kinds)
    verdicts = {programs.RIGHT: "AC", programs.WRONG: "WA", programs.SLOW: "TLE"}
    assert judged == {key: verdicts.get(kind) for key, kind in kinds.items()}
    for kind, verdict in verdicts.items():
        assert told["verdicts"][verdict] == list(kinds.values()).count(kind)


def test_a_distillation_by_hosts_that_share_no_disk_is_that_of_one() -> None:
    """The slowest of these (about 60 s): every child is a real one, but for the teacher's."""
    told = play("--broker", "redis", "--distil")
    assert told["state"] == "finished", told["error"]
    drew = told["hosts"].pop("generate")  # of beta's shards alpha may have finished every one
    assert "alpha" in drew
    assert told["hosts"] == {
        "preflight": ["beta"], "filter": ["beta"], "train": ["alpha"], "evaluate": ["alpha"],
        "grade": ["beta"],
    }  # fmt: skip
    assert told["wrong"] == []
    funnel = told["funnel"]
    assert funnel["traces"] == distilling.PROMPTS * distilling.SAMPLES
    assert 0 < funnel["kept"] < funnel["traces"]
    assert told["rows"] == {"kept": funnel["kept"], "dropped": funnel["dropped"]}
    assert told["corpus"] == [told["alone"][0]] * 2
    assert told["student"] == [told["alone"][1]] * 2
    assert told["parent"] == "base"
    assert 0 < told["sources"]["general"] <= distilling.CHATS
    assert told["examples"] == sum(told["sources"].values())
    assert told["checks"] > 0 == told["errors"]
    assert told["points"] > 0
    assert {tuple(answer) for answer in told["pages"].values()} == {(200, True)}, told["pages"]
