"""Seven people, two projects, and one of everything in the one that not all of them see."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from tests.webapp import samples
from webapp.api import tokens
from webapp.benchmarks.services import install_prompt_set
from webapp.checkpoints.models import Checkpoint, Upload, UploadFile
from webapp.core.models import User
from webapp.endpoints import services as endpoints
from webapp.leaderboard.models import Dispute, DisputedScore, Report
from webapp.projects import invitations
from webapp.projects.models import Project, Role
from webapp.runs import files
from webapp.runs.models import Evaluation, Run, State, WorkerHeartbeat

# Stands in every name, note and text of the project that the stranger does not see.
MARK = "quokka"
PROBLEMS = samples.arithmetic(2)

ANONYMOUS, STRANGER, VIEWER, OPERATOR = "anonymous", "stranger", "viewer", "operator"
OWNER, ADMIN, ADMINISTRATOR = "owner", "admin", "administrator"
ROLES = (ANONYMOUS, STRANGER, VIEWER, OPERATOR, OWNER, ADMIN, ADMINISTRATOR)


def no_such() -> uuid.UUID:
    """The key of an upload that there is not."""
    return uuid.UUID(int=7)


@dataclass(slots=True)
class World:
    """The people by role, the things by name."""

    people: dict[str, User]
    project: Project
    other: Project
    keys: dict[str, Any] = field(default_factory=dict)  # name of a thing → its key in addresses
    clients: dict[str, Client] = field(default_factory=dict)

    def client(self, role: str) -> Client:
        """A client in which the role's person is signed in."""
        if role not in self.clients:
            client = Client(raise_request_exception=True)
            if role != ANONYMOUS:
                client.force_login(self.people[role])
            self.clients[role] = client
        return self.clients[role]


def build() -> World:
    """Make all of it."""
    people = {role: User(username=f"{role}-of-{MARK}") for role in ROLES[2:]}
    people[STRANGER] = User(username="stranger")
    for person in people.values():
        person.save()
    User.objects.create(username="newcomer")  # in no project
    people[ADMINISTRATOR].is_staff = people[ADMINISTRATOR].is_superuser = True
    people[ADMINISTRATOR].save()
    project = samples.make_project(
        f"{MARK} lab",
        {
            people[VIEWER]: Role.VIEWER, people[OPERATOR]: Role.OPERATOR,
            people[OWNER]: Role.OPERATOR, people[ADMIN]: Role.ADMIN,
        },
    )  # fmt: skip
    other = samples.make_project("elsewhere", {people[STRANGER]: Role.ADMIN})
    world = World(people, project, other)
    _measured(world)
    _under_way(world)
    _brought_in(world)
    return world


def _draw(rng: Any, problem: Any, sample: int) -> Any:
    text = f"<think>\n{MARK}\n</think>\n{MARK}"
    right = sample % 2 == 0
    outcome = samples.Outcome.CORRECT if right else samples.Outcome.WRONG
    return text, outcome, problem.answer if right else "no", "by a test"


def _measured(world: World) -> None:
    owner = world.people[OWNER]
    benchmark = samples.make_benchmark(PROBLEMS)
    prompts = install_prompt_set("prompts", PROBLEMS)
    student = samples.make_checkpoint(
        owner, f"{MARK}-student", project=world.project, notes=MARK, tags=[MARK]
    )
    base = samples.make_checkpoint(owner, f"{MARK}-base", project=world.project)
    Checkpoint.objects.filter(pk=student.pk).update(parent=base)
    found = samples.make_evaluation(owner, student, benchmark, PROBLEMS, samples=2, draw=_draw)
    more = samples.make_evaluation(owner, base, benchmark, PROBLEMS, samples=2, draw=_draw)
    problem = benchmark.problems.earliest("pk")
    dispute = Dispute.objects.create(
        evaluation=found, problem=problem, sample=1, claim="correct", reason=MARK, outcome="wrong",
        author=owner,
    )  # fmt: skip
    DisputedScore.objects.create(evaluation=found, wanted=1)
    report = _report(found, owner)
    theirs = samples.make_checkpoint(world.people[STRANGER], "theirs", project=world.other)
    foreign = samples.make_evaluation(
        world.people[STRANGER], theirs, benchmark, PROBLEMS, samples=2, draw=samples.plain_draw(0.5)
    )
    world.keys |= {
        "evaluation": found.pk, "more": more.pk, "problem": problem.pk, "dispute": dispute.pk,
        "report": report.pk, "checkpoint": student.pk, "finished": found.run_id,
        "benchmark": benchmark.pk, "prompt_set": prompts.pk, "theirs": foreign.pk,
        "their_checkpoint": theirs.pk, "person": owner.pk,
    }  # fmt: skip


def _report(found: Evaluation, owner: User) -> Report:
    path = f"reports/{found.pk}/made.pdf"
    place = files.store_path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(MARK.encode())
    return Report.objects.create(
        evaluation=found, form="pdf", owner=owner, state=Report.State.READY, path=path,
        made_at=timezone.now(), size_bytes=len(MARK),
    )  # fmt: skip


def _under_way(world: World) -> None:
    owner, project = world.people[OWNER], world.project
    config = {"thinking": {"kind": "tags"}, "student": MARK}
    run = samples.make_run(
        owner, f"{MARK} under way", Run.Kind.DISTILLATION, State.RUNNING, project=project,
        config=config,
    )  # fmt: skip
    corpus = files.store_path("runs/9/1/lease/corpus")
    corpus.mkdir(parents=True)
    samples.write_corpus(corpus.parent)
    filtered = {"corpus": "runs/9/1/lease/corpus", "funnel": samples.FUNNEL}
    samples.make_stage(run, 0, "filter", f"Filter {MARK}", result=filtered)
    samples.make_stage(run, 1, "train", f"Train {MARK}", state=State.RUNNING, log_tail=MARK)
    failed = samples.make_run(
        owner, f"{MARK} failed", Run.Kind.EVALUATION, State.FAILED, project=project, error=MARK
    )
    samples.make_stage(failed, 0, "evaluate", f"Draw {MARK}", state=State.FAILED, error=MARK)
    check = samples.make_run(
        owner, f"check of {MARK}", Run.Kind.CHECK, project=project, config=config
    )
    samples.make_stage(check, 0, "preflight", f"Check {MARK}")
    worker = WorkerHeartbeat.objects.create(
        name="host/1", host="host", queues="cpu", doing=f"fetching {MARK}", seen_at=timezone.now()
    )
    world.keys |= {
        "running": run.pk, "failed": failed.pk, "check": check.pk, "worker": worker.pk,
    }  # fmt: skip


def _brought_in(world: World) -> None:
    owner, project = world.people[OWNER], world.project
    endpoint = endpoints.register(
        owner=owner, project=project, name=f"{MARK}/served", model=f"{MARK}-r1",
        base_url=f"http://127.0.0.1:9/{MARK}/v1", key=f"{MARK}-key",
    )  # fmt: skip
    upload = Upload.objects.create(owner=owner, project=project, name=f"{MARK}-upload")
    file = UploadFile.objects.create(upload=upload, path=f"{MARK}.json", length_bytes=2)
    second = Upload.objects.create(owner=owner, project=project, name=f"{MARK}-second")
    invitation, _ = invitations.invite(
        world.people[ADMIN], project, f"{MARK}@example.org", Role.VIEWER
    )
    token, _ = tokens.make(owner, name=MARK, scope="read", days=1, project=None)
    world.keys |= {
        "token": token.pk, "endpoint": endpoint.pk, "upload": upload.pk, "file": file.pk,
        "second_upload": second.pk, "invitation": invitation.pk, "project": project.pk,
        "member": world.people[OPERATOR].pk,
    }  # fmt: skip


# --- what a request changed

# Who is signed in, and since when, is no change of anything that somebody owns.
_IGNORED = ("django_session", "django_migrations", "core_session", "core_signin")


def _tables() -> list[str]:
    return [
        name
        for name in sorted(connection.introspection.table_names())
        if not name.startswith(_IGNORED)
    ]


def contents() -> dict[str, frozenset[str]]:
    """All rows of all tables, as text; what a person's last sign-in was is left out."""
    found: dict[str, frozenset[str]] = {}
    with connection.cursor() as cursor:
        for table in _tables():
            what = "(to_jsonb(t) - 'last_login')::text"
            cursor.execute(f'SELECT {what} FROM "{table}" t')
            found[table] = frozenset(row[0] for row in cursor.fetchall())
    return found


def difference(before: dict[str, frozenset[str]]) -> dict[str, list[str]]:
    """Rows that are there now and were not, and those that are gone, by table."""
    now = contents()
    return {
        table: sorted(now[table] ^ rows) for table, rows in before.items() if now[table] != rows
    }


def _touched() -> list[tuple[Any, ...]]:
    """How many rows this transaction wrote in each table; no lower after a savepoint's rollback."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_xact_user_tables "
            "WHERE n_tup_ins + n_tup_upd + n_tup_del > 0 ORDER BY relname"
        )
        return [row for row in cursor.fetchall() if not row[0].startswith(_IGNORED)]


@contextmanager
def undone(before: dict[str, frozenset[str]] | None = None) -> Iterator[dict[str, list[str]]]:
    """Whatever is written inside is taken back; what differs from ``before`` is given.

    All rows are only read where the database counted a write: most requests write nothing.
    """
    changed: dict[str, list[str]] = {}
    touched = _touched()
    with transaction.atomic():
        yield changed
        if before is not None and _touched() != touched:
            changed |= difference(before)
        transaction.set_rollback(True)
