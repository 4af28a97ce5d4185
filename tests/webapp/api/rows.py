"""An installation with a row of everything, for tests that walk over the whole API."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils import timezone

from tests.webapp.samples import (
    arithmetic,
    make_benchmark,
    make_checkpoint,
    make_evaluation,
    make_run,
    make_stage,
)
from webapp.api import tokens
from webapp.benchmarks.services import install_prompt_set
from webapp.checkpoints import uploads
from webapp.core.models import User
from webapp.endpoints import services as endpoints
from webapp.leaderboard import disputes, reports
from webapp.projects.models import Invitation, Membership, Project, Role
from webapp.runs.models import Completion, Run, State, WorkerHeartbeat


@dataclass
class World:
    """A project with a row of everything; the keys that an address may name."""

    project: Project
    owner: User
    keys: dict[str, Any]


def make_world(owner: User, project: Project, name: str) -> World:
    """Rows of ``owner`` in ``project``; ``name`` begins their names."""
    problems = arithmetic(3 + len(name))  # another version for each
    checkpoint = make_checkpoint(owner, f"{name}-model", project=project)
    benchmark = make_benchmark(problems)
    run = make_run(owner, f"{name} run", Run.Kind.EVALUATION, project=project)
    evaluation = make_evaluation(owner, checkpoint, benchmark, problems, samples=2, run=run)
    other = make_evaluation(
        owner, make_checkpoint(owner, f"{name}-other", project=project), benchmark, problems,
        samples=2, seed=1, run=make_run(owner, f"{name} 2", Run.Kind.EVALUATION, project=project),
    )  # fmt: skip
    open_run = make_run(owner, f"{name} open", Run.Kind.EVALUATION, State.RUNNING, project=project)
    make_stage(open_run, 0, "evaluate", "Evaluate", state=State.RUNNING, log_tail="a line")
    graded = Completion.objects.filter(evaluation=evaluation).exclude(outcome="correct")[0]
    dispute = disputes.dispute(owner, graded, "correct", "it is right")[0]
    endpoint = endpoints.register(
        owner=owner, project=project, name=f"{name}-served", base_url="http://127.0.0.1:9/v1",
        model="m", key="a-secret-key",
    )  # fmt: skip
    upload = uploads.begin(
        owner, f"{name}-coming", [("config.json", 4), ("model.safetensors", 9)], project
    )
    token, _ = tokens.make(owner, name=f"{name} token")
    worker = WorkerHeartbeat.objects.create(name=f"{name}/1", host=name, seen_at=timezone.now())
    invitation = Invitation.objects.create(
        project=project, email=f"{name}@example.org", role=Role.VIEWER, digest=name,
        invited_by=owner, expires_at=timezone.now() + timedelta(days=1),
    )  # fmt: skip
    report = reports.ask_for(owner, evaluation, "pdf")
    prompts = install_prompt_set(f"{name}-prompts", problems)
    return World(
        project, owner,
        {
            "projects": project.pk, "checkpoints": checkpoint.pk, "endpoints": endpoint.pk,
            "benchmarks": benchmark.pk, "prompt-sets": prompts.pk, "runs": run.pk,
            "open_run": open_run.pk, "evaluations": evaluation.pk, "other": other.pk,
            "uploads": upload.pk, "tokens": token.pk, "workers": worker.pk, "people": owner.pk,
            "dispute": dispute.pk, "invitation": invitation.pk,
            "report": report.pk, "problem": graded.problem_id,
            "member": Membership.objects.get(project=project, user=owner).pk,
        },
    )  # fmt: skip


def member(name: str, project: Project, role: Role) -> User:
    """Somebody who is in this project only."""
    person = User.objects.create_user(name, password="a long enough password")
    Membership.objects.filter(user=person).delete()
    Membership.objects.create(user=person, project=project, role=role)
    return person
