"""Programs through a real worker: judged, rated, shown; the same figures as by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.template.defaultfilters import floatformat
from django.test import Client
from django.urls import reverse

from evaluator.sandbox.errors import SandboxUnavailableError
from tests.evaluator import programs
from webapp.benchmarks.models import Benchmark, Contest
from webapp.config import celery
from webapp.core.errors import UserError
from webapp.runs import services
from webapp.runs.models import Completion, Run, State
from workers import children

BUNDLES = [programs.bundle(name) for name in ("9001", "9002")]


@pytest.fixture
def bundles(tmp_path: Path) -> list[Path]:
    return [
        programs.write_json(tmp_path / f"{bundle['contest']['id']}.json", bundle)
        for bundle in BUNDLES
    ]


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    return programs.write_lines(tmp_path / "answers.jsonl", programs.completions())


def import_answers(user: Any, answers: Path) -> Run:
    benchmark = Benchmark.objects.get(name="codeforces")
    return services.import_completions(
        owner=user, checkpoint_name="coder", benchmark=benchmark, path=answers
    )


def rating_by_hand(count: Callable[[dict[str, Any]], float]) -> float:
    return sum(count(bundle) for bundle in BUNDLES) / len(BUNDLES)


def test_a_worker_judges_rates_and_the_pages_show_it(
    user: Any, bundles: list[Path], answers: Path, start_worker: Any, wait_until: Any
) -> None:
    call_command("import_contests", *map(str, bundles), "--problems")
    run = import_answers(user, answers)
    grading = run.stages.get(kind="grade")
    assert grading.queue == celery.JUDGE, "who judges programs holds nothing worth stealing"
    start_worker()
    wait_until(lambda: Run.objects.get(pk=run.pk).state in (State.FINISHED, State.FAILED))
    evaluation = run.evaluations.get()
    assert Run.objects.get(pk=run.pk).state == State.FINISHED, Run.objects.get(pk=run.pk).error
    metrics = evaluation.metrics
    kinds = [kind for each in programs.SAMPLES.values() for kind in each]
    assert metrics["verdicts"]["AC"] == kinds.count(programs.RIGHT)
    assert metrics["verdicts"]["TLE"] == 1
    for name, count in (("rating@1", programs.rating_at_1), ("rating@8", programs.rating_at_8)):
        value = metrics["rating"]["elo"][name]["value"]
        assert value == pytest.approx(rating_by_hand(count), abs=0.1)
    slow = Completion.objects.get(problem__problem_id="9002/B", sample=0)
    assert slow.judged["verdict"] == "TLE"
    assert slow.judged["test"]["cpu_seconds"] >= 1
    assert Completion.objects.filter(judged__isnull=True).count() == 2, "nothing to judge in two"
    client = Client()
    client.force_login(user)
    assert_shown(client, evaluation, slow)


def assert_shown(client: Client, evaluation: Any, slow: Completion) -> None:
    people = "participants of Round 9001; Round 9002"
    page = client.get(evaluation.get_absolute_url()).content.decode()
    report = client.get(reverse("leaderboard:report_html", args=[evaluation.pk]))
    for shown in (page, report.content.decode()):
        for part in ("rating@1", "rating@8", people, "time limit exceeded", "no program"):
            assert part in shown
    found = evaluation.metrics["rating"]["elo"]["rating@1"]
    board = client.get(reverse("leaderboard:index") + "?benchmark=codeforces").content.decode()
    assert f"{found['value']:,.0f}" in board
    assert f"above {floatformat(found['percentile'], 1)} %" in board
    assert people in board
    assert "2,029" in board, "the published rating of DeepSeek-R1 stands in the same column"
    one = client.get(
        reverse("leaderboard:problem", args=[evaluation.pk, slow.problem_id])
    ).content.decode()
    for part in ("TLE", "test 1", "MiB", "while True: pass", "0 of 3 tests"):
        assert part in one


def test_contests_that_come_later_rate_what_is_graded_already(
    user: Any, bundles: list[Path], answers: Path, start_worker: Any, wait_until: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    rows = programs.write_lines(tmp_path / "p.jsonl", [programs.row(p) for p in programs.SAMPLES])
    call_command("import_benchmark", "codeforces", str(rows))
    run = import_answers(user, answers)
    start_worker()
    wait_until(lambda: Run.objects.get(pk=run.pk).state in (State.FINISHED, State.FAILED))
    evaluation = run.evaluations.get()
    assert "no contest bundle" in evaluation.metrics["rating"]["missing"]
    client = Client()
    client.force_login(user)
    assert "no contest bundle" in client.get(evaluation.get_absolute_url()).content.decode()
    call_command("import_contests", str(bundles[1]))
    evaluation.refresh_from_db()
    found = evaluation.metrics["rating"]["elo"]["rating@8"]["value"]
    assert found == pytest.approx(programs.rating_at_8(BUNDLES[1]), abs=0.1)
    assert evaluation.metrics["verdicts"]["AC"] > 0, "only the rating is computed again"


@pytest.mark.django_db
def test_without_a_sandbox_nothing_is_launched(
    user: Any, bundles: list[Path], answers: Path, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    from evaluator.sandbox import box

    def refuse() -> None:
        raise SandboxUnavailableError("sandbox: install the package bubblewrap.")

    call_command("import_contests", *map(str, bundles), "--problems")
    monkeypatch.setattr(box, "check_available", refuse)
    with pytest.raises(UserError, match="install the package bubblewrap"):
        import_answers(user, answers)
    assert not Run.objects.exists()
    settings.RETORT_QUEUES = ["gpu", "cpu"]  # another host judges
    assert import_answers(user, answers).stages.count() == 2


@pytest.mark.django_db
def test_contests_are_installed_all_or_none(bundles: list[Path], tmp_path: Path) -> None:
    broken = programs.write_json(tmp_path / "broken.json", {"data": [["1", 500, 0, 1500, 0]]})
    with pytest.raises(CommandError, match="standings only"):
        call_command("import_contests", str(bundles[0]), str(broken))
    assert not Contest.objects.exists()
    call_command("import_contests", *map(str, bundles))
    call_command("import_contests", str(bundles[0]))
    assert Contest.objects.count() == 2, "the same contest stands there once"


@pytest.mark.django_db
def test_an_administrator_uploads_contests_and_nobody_else(
    admin: Any, user: Any, bundles: list[Path], tmp_path: Path
) -> None:
    address = reverse("benchmarks:contests")
    people = programs.write_json(tmp_path / "people.json", {"1000": 3, "2000": 1})
    wrong = programs.write_json(tmp_path / "wrong.json", [1, 2])

    def send(who: Any, path: Path, kind: str = "contest") -> Any:
        client = Client()
        client.force_login(who)
        with path.open("rb") as file:
            return client.post(address, {"kind": kind, "file": file}, follow=True)

    assert send(user, bundles[0]).status_code == 403
    assert not Contest.objects.exists()
    refused = send(admin, wrong)
    assert refused.status_code == 400
    assert "wrong.json" in refused.content.decode()
    assert send(admin, bundles[0]).status_code == 200
    shown = send(admin, people, "population").content.decode()
    assert "Round 9001" in shown
    assert "<strong>people</strong>" in shown


def test_the_judge_is_told_that_isolation_was_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETORT_UNSAFE_SANDBOX", "1")
    assert children.child_environment(())["RETORT_UNSAFE_SANDBOX"] == "1"
    monkeypatch.delenv("RETORT_UNSAFE_SANDBOX")
    assert "RETORT_UNSAFE_SANDBOX" not in children.child_environment(())
