"""The judge queue's database role: it can do its shards, and nothing else."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from evaluator.errors import StoreError
from evaluator.store import SegmentWriter
from webapp.benchmarks.models import Benchmark
from webapp.config import celery
from webapp.runs import files, hosts, leases, plans, services, settling
from webapp.runs.management.commands.judge_role import make_role
from webapp.runs.models import Completion, Run, Segment, Shard, Stage, State, WorkerHeartbeat
from workers import judging

ROLE = "retort_judge_test"
Wait = Callable[..., Any]


@pytest.fixture
def role(transactional_db: None) -> str:
    make_role(ROLE, None)
    return ROLE


@pytest.fixture
def entrance(role: str) -> Iterator[Any]:
    """A connection with the judge's rights."""
    where = connection.settings_dict
    with psycopg.connect(
        host=where["HOST"], user=role, dbname=where["NAME"], autocommit=True
    ) as opened:
        yield opened


@pytest.fixture
def rows_file(benchmark: Benchmark, tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for number, problem in enumerate(benchmark.problems.all()):
            answer = int(problem.answer) + number % 3
            row = {"problem_id": problem.problem_id, "sample": 0,
                   "completion": rf"<think>hm</think>\boxed{{{answer}}}"}  # fmt: skip
            file.write(json.dumps(row) + "\n")
    return path


def to_the_judge(run: Run) -> Stage:
    """Have the run's grading done by the judge queue, as a benchmark of programs would."""
    grade = run.stages.get(kind="grade")
    Stage.objects.filter(pk=grade.pk).update(queue=celery.JUDGE)
    return run.stages.get(kind="grade")


def tables() -> list[str]:
    return sorted(connection.introspection.table_names())


def test_a_role_that_has_become_more_is_set_right(role: str) -> None:
    every = ("SUPERUSER", "CREATEDB", "CREATEROLE", "REPLICATION", "BYPASSRLS")
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER ROLE {role} NOLOGIN {' '.join(every)}")
        make_role(role, None)
        cursor.execute(
            "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, "
            "rolcanlogin FROM pg_roles WHERE rolname = %s",
            [role],
        )
        assert cursor.fetchone() == (*(False for _ in every), True)


def test_who_may_make_no_roles_is_told_so(entrance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET ROLE {ROLE}")
        try:
            with pytest.raises(CommandError, match=r"ALTER ROLE .* CREATEROLE"):
                call_command("judge_role", name="another")
        finally:
            cursor.execute("RESET ROLE")


@pytest.mark.parametrize("right", ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"])
def test_the_role_has_no_right_to_any_table(role: str, right: str) -> None:
    assert len(tables()) > 15
    with connection.cursor() as cursor:
        for table in tables():
            cursor.execute("SELECT has_table_privilege(%s, %s, %s)", [role, table, right])
            assert cursor.fetchone() == (False,), table
            cursor.execute("SELECT has_any_column_privilege(%s, %s, 'SELECT')", [role, table])
            assert cursor.fetchone() == (False,), table


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT password FROM core_user",
        "SELECT * FROM django_session",
        "UPDATE runs_shard SET state = 'finished'",
        "DELETE FROM runs_run",
        "CREATE TABLE mine (x int)",
        "SELECT * FROM runs_claim(ARRAY['gpu'], 'me', 60, NULL, NULL, NULL, 0)",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "CREATE ROLE another",
        "ALTER ROLE postgres PASSWORD 'x'",
        "SET ROLE postgres",
        "SELECT rolpassword FROM pg_authid",
    ],
)
def test_what_the_role_tries_is_refused(entrance: Any, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        entrance.execute(statement)


def test_functions_belong_to_the_role_and_not_to_everybody(role: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT proname, proacl::text FROM pg_proc WHERE proname LIKE 'judge\\_%%'")
        found = dict(cursor.fetchall())
    assert len(found) >= 10
    for name, rights in found.items():
        assert f"{role}=X/" in rights, name
        assert not any(entry.startswith("=X") for entry in rights.strip("{}").split(",")), name


def test_other_queues_shards_cannot_be_touched(run: Run, evaluate: Stage, entrance: Any) -> None:
    claim = leases.claim_shard(evaluate.pk, "me")
    assert claim is not None
    shard, token = claim.shard_id, claim.token
    assert entrance.execute("SELECT * FROM judge_claim('j', 60, NULL, 0)").fetchall() == []
    name = f"{claim.prefix}-00000.jsonl.zst"
    for call, arguments in (
        ("judge_renew(%s, %s, 60)", ()),
        ("judge_held(%s, %s)", ()),
        ("judge_release(%s, %s)", ()),
        ("judge_progress(%s, %s, 9, 9)", ()),
        ("judge_accept(%s, %s, %s, 'x', 1, 1)", (name,)),
        ("judge_finish(%s, %s, '{}')", ()),
        ("judge_fail(%s, %s, 'no', false, 1, '')", ()),
    ):
        found = entrance.execute(f"SELECT {call}", [shard, token, *arguments]).fetchone()
        assert found == (False,), call
    assert leases.is_held(claim)
    assert not Segment.objects.exists()


def test_a_lease_that_is_not_ours_and_names_that_are_not_the_leases_are_refused(
    run: Run, entrance: Any
) -> None:
    Stage.objects.filter(run=run, kind="evaluate").update(queue=celery.JUDGE, devices=0)
    row = entrance.execute("SELECT shard_id, token FROM judge_claim('j', 60, NULL, 0)").fetchone()
    shard, token = row
    held = "SELECT judge_held(%s, %s)"
    assert entrance.execute(held, [shard, token]).fetchone() == (True,)
    assert entrance.execute(held, [shard, uuid.uuid4()]).fetchone() == (False,)
    accept = "SELECT judge_accept(%s, %s, %s, 'x', 1, 1)"
    prefix = f"{shard:08d}-{token.hex}"
    for name in ("../../x", f"{prefix}-../x.jsonl.zst", "00000001-0-00000.jsonl.zst"):
        assert entrance.execute(accept, [shard, token, name]).fetchone() == (False,)
    good = f"{prefix}-00000.jsonl.zst"
    assert entrance.execute(accept, [shard, token, good]).fetchone() == (True,)


def test_a_worker_with_the_judges_role_judges_and_the_run_ends(
    benchmark: Any, user: Any, rows_file: Path, role: str, start_worker: Callable[..., Any],
    wait_until: Wait, process_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(plans, "GRADE_SHARD", 40)
    real = plans.stages.queue_of
    monkeypatch.setattr(
        plans.stages, "queue_of",
        lambda kind, *rest: celery.JUDGE if kind == "grade" else real(kind, *rest),
    )  # fmt: skip
    run = services.import_completions(
        owner=user, checkpoint_name="elsewhere", benchmark=benchmark, path=rows_file
    )
    address = process_environment["DATABASE_URL"].rpartition("user=")[0] + f"user={role}"
    start_worker(RETORT_QUEUES="cpu,upkeep", RETORT_HOST="trusted")
    start_worker(RETORT_QUEUES="judge", RETORT_HOST="cell", DATABASE_URL=address)

    def final() -> bool:
        run.refresh_from_db()
        return run.state in (State.FINISHED, State.FAILED)

    wait_until(final)
    assert run.state == State.FINISHED, run.error
    grade = run.stages.get(kind="grade")
    assert grade.shards.count() == 4
    assert {n.partition("/")[0] for n in grade.shards.values_list("worker", flat=True)} == {
        "judge:cell"
    }
    assert run.evaluations.get().pass_at_1 == pytest.approx(1 / 3)
    assert set(Completion.objects.values_list("outcome", flat=True)) == {"correct", "wrong"}
    assert WorkerHeartbeat.objects.filter(name__startswith="judge:cell/").exists()


def test_a_worker_with_the_judges_role_refuses_other_queues(
    role: str, start_worker: Callable[..., Any], process_environment: dict[str, str]
) -> None:
    address = process_environment["DATABASE_URL"].rpartition("user=")[0] + f"user={role}"
    assert start_worker(RETORT_QUEUES="cpu,judge", DATABASE_URL=address).wait(timeout=60) == 2


@pytest.fixture
def judged(benchmark: Any, user: Any, rows_file: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """An imported run whose single grading shard the judge has claimed."""
    monkeypatch.setattr(plans.stages, "ring", lambda stage, times: None)
    run = services.import_completions(
        owner=user, checkpoint_name="elsewhere", benchmark=benchmark, path=rows_file
    )
    to_the_judge(run)
    stage = run.stages.get(kind="import")
    claim = leases.claim_shard(stage.pk, "me")
    assert claim is not None
    writer = SegmentWriter(files.segments_folder(stage), prefix=claim.prefix)
    for line in rows_file.read_text().splitlines():
        row = json.loads(line)
        writer.append({
            "problem_id": row["problem_id"], "sample": 0, "text": row["completion"],
            "finish_reason": "stop", "prompt_tokens": None, "completion_tokens": None,
        })  # fmt: skip
    sealed = writer.seal()
    assert sealed is not None
    leases.accept_segment(claim, name=sealed.name, size_bytes=sealed.bytes, sha256=sealed.sha256)
    leases.finish_shard(claim, {"rows": 120})
    return run


@pytest.mark.parametrize(
    "told", [{}, {"metrics": {}}, {"metrics": None}, {"metrics": {"pass@1": {"value": 1.0}}}]
)
def test_what_the_judge_makes_up_is_not_believed(
    judged: Run, role: str, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any]
) -> None:
    monkeypatch.setattr(celery, "ask_to_settle", lambda: None)
    claim = judging.claim("me")
    assert claim is not None
    assert judging.write_spec(judging.stage_of(claim), "cpu").is_file()
    judging.finish_shard(claim, told)  # without a single verdict
    assert settling.settle() == [claim.stage_id]
    judged.refresh_from_db()
    assert judged.state == State.FAILED
    assert "What the judge delivered cannot be used" in judged.error


VERDICT = {"sample": 0, "outcome": "correct", "answer": "1", "reason": ""}
WHOLE = {"metrics": {"pass@1": {"value": 1.0}, "measurement_hash": "a", "run_fingerprint": "b"}}


def delivered(verdict: dict[str, Any] | None, told: dict[str, Any]) -> int:
    """Claim a shard and deliver right verdicts but for ``verdict``; returns the stage's id.

    None delivers rows that are no objects.
    """
    claim = judging.claim("me")
    assert claim is not None
    stage = judging.stage_of(claim)
    judging.write_spec(stage, "cpu")
    writer = SegmentWriter(files.segments_folder(stage), prefix=claim.prefix)
    for found in Completion.objects.select_related("problem"):
        row = {"problem_id": found.problem.problem_id, **VERDICT}
        writer.append(row | verdict if verdict is not None else [row])  # type: ignore[arg-type]
    sealed = writer.seal()
    assert sealed is not None
    judging.accept_segment(claim, name=sealed.name, size_bytes=sealed.bytes, sha256=sealed.sha256)
    judging.finish_shard(claim, told)
    return claim.stage_id


@pytest.mark.parametrize(
    ("verdict", "told"),
    [
        ({"sample": 2**70}, WHOLE), ({"outcome": "wonderful"}, WHOLE), ({"outcome": 5}, WHOLE),
        ({"outcome": []}, WHOLE), ({"answer": 5}, WHOLE), ({"reason": {}}, WHOLE),
        ({"problem_id": []}, WHOLE), (None, WHOLE),
        ({}, {"metrics": {**WHOLE["metrics"], "pass@1": {"value": "much"}}}),
        ({}, {"metrics": {**WHOLE["metrics"], "pass@1": {"value": 10**400}}}),
        ({}, {"metrics": {**WHOLE["metrics"], "measurement_hash": "a" * 10_000}}),
        ({}, {"metrics": []}),
    ],
)  # fmt: skip
def test_whatever_the_judge_delivers_the_upkeep_goes_on(
    judged: Run, role: str, monkeypatch: pytest.MonkeyPatch, verdict: Any, told: dict[str, Any]
) -> None:
    """Who broke out of the sandbox of programs writes what they like into the judge's segments."""
    monkeypatch.setattr(celery, "ask_to_settle", lambda: None)
    stage_id = delivered(verdict, told)
    assert settling.settle() == [stage_id]
    judged.refresh_from_db()
    assert judged.state == State.FAILED
    assert "What the judge delivered cannot be used" in judged.error


def test_segments_that_cannot_be_had_now_are_asked_for_again(
    judged: Run, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery, "ask_to_settle", lambda: None)
    stage_id = delivered({}, WHOLE)
    fetch, tries = files.store.fetch, []

    def away(relative: str) -> Path:
        tries.append(connection.in_atomic_block)
        if len(tries) == 1:
            raise StoreError("store: the bucket does not answer.")
        return fetch(relative)

    monkeypatch.setattr(files.store, "fetch", away)
    assert settling.settle() == []
    judged.refresh_from_db()
    assert judged.state in leases.LIVE
    assert settling.settle() == [stage_id]
    judged.refresh_from_db()
    assert judged.state != State.FAILED, judged.error
    assert tries[:2] == [False, False]  # the run is not locked meanwhile


def test_a_failure_that_the_judge_reports_fails_the_run(
    judged: Run, role: str, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    monkeypatch.setattr(celery, "ask_to_settle", lambda: None)
    settings.RETORT_RETRY_SECONDS = 0.0
    claim = judging.claim("me")
    assert claim is not None
    judging.fail_shard(claim, "once more", transient=True)
    assert settling.settle() == []
    shard = Shard.objects.get(pk=claim.shard_id)
    assert (shard.state, shard.failures) == (State.QUEUED, 1)
    claim = judging.claim("me")
    assert claim is not None
    judging.fail_shard(claim, "no sandbox", transient=False, log_tail="last words")
    assert settling.settle() == [claim.stage_id]
    judged.refresh_from_db()
    assert (judged.state, judged.error) == (State.FAILED, "no sandbox")
    hosts.tidy()
