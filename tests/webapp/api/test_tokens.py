"""Tokens: what they open, for how long, for whom; that their secrets stay secret."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from tests.webapp.samples import make_run
from webapp.api import tokens
from webapp.api.models import ApiToken
from webapp.checkpoints import uploads
from webapp.core.errors import UserError
from webapp.core.logs import JsonFormatter, TextFormatter
from webapp.core.models import AuditEntry
from webapp.projects.models import Membership, Project, Role
from webapp.runs.models import Run, State

pytestmark = pytest.mark.django_db
ME = "/api/v1/me"
Make = Callable[..., Client]


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_only_the_digest_of_a_secret_is_kept(user: Any) -> None:
    token, secret = tokens.make(user, name="laptop")
    row = ApiToken.objects.values().get(pk=token.pk)
    assert secret not in str(row)
    assert row["digest"] == hashlib.sha256(secret.encode()).hexdigest()
    assert secret.startswith(row["prefix"])
    assert len(secret) >= len("retort_") + 43  # 256 bits in base64


def test_a_token_speaks_for_its_owner(user: Any, by_token: Make) -> None:
    answer = by_token(user, "read").get(ME)
    assert answer.status_code == 200
    assert answer.json()["username"] == "ada"
    assert answer.json()["scope"] == "read"
    assert answer.json()["projects"][0]["role"] == "operator"


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer x", "Basic YTpi", "Bearer retort_" + "x" * 43]
)
def test_what_is_no_token_is_refused(client: Client, user: Any, header: str) -> None:
    answer = client.get(ME, headers={"Authorization": header} if header else {})
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"].startswith("Bearer")
    assert set(answer.json()) == {"field", "sentence"}


@pytest.mark.parametrize(
    "change",
    [
        lambda token: ApiToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1)),
        tokens.revoke,
        lambda token: type(token.owner).objects.update(is_active=False),
        lambda token: token.delete(),
    ],
    ids=["expired", "revoked", "owner inactive", "deleted"],
)
def test_a_token_that_is_over_opens_nothing(client: Client, user: Any, change: Any) -> None:
    token, secret = tokens.make(user, name="laptop")
    assert client.get(ME, headers=bearer(secret)).status_code == 200
    change(token)
    assert client.get(ME, headers=bearer(secret)).status_code == 401


def test_a_scope_that_is_missing_is_named(user: Any, by_token: Make) -> None:
    run = make_run(user, "a run", Run.Kind.EVALUATION, State.RUNNING)
    answer = by_token(user, "read").post(f"/api/v1/runs/{run.pk}/cancel")
    assert answer.status_code == 403
    assert "needs write" in answer.json()["sentence"]
    assert by_token(user, "write").post(f"/api/v1/runs/{run.pk}/cancel").status_code == 200
    run.refresh_from_db()
    assert run.state == State.CANCELLED


def test_a_session_needs_its_csrf_token(user: Any) -> None:
    run = make_run(user, "a run", Run.Kind.EVALUATION, State.RUNNING)
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(user)
    assert browser.get(ME).status_code == 200
    assert browser.post(f"/api/v1/runs/{run.pk}/cancel").status_code == 401
    browser.get("/accounts/tokens/")
    csrf = browser.cookies["csrftoken"].value
    answer = browser.post(f"/api/v1/runs/{run.pk}/cancel", headers={"X-CSRFToken": csrf})
    assert answer.status_code == 200


def test_a_limited_token_sees_its_project_only(admin: Any, by_token: Make) -> None:
    elsewhere = Project.objects.create(name="elsewhere")
    Membership.objects.create(project=elsewhere, user=admin, role=Role.VIEWER)
    here = make_run(admin, "here", Run.Kind.EVALUATION, State.RUNNING)
    there = make_run(admin, "there", Run.Kind.EVALUATION, State.RUNNING)
    Run.objects.filter(pk=there.pk).update(project=elsewhere)
    limited, whole = by_token(admin, project=elsewhere), by_token(admin)

    def names(client: Client) -> set[str]:
        return {run["name"] for run in client.get("/api/v1/runs").json()["items"]}

    assert names(whole) == {"here", "there"}
    assert names(limited) == {"there"}
    assert limited.get(f"/api/v1/runs/{here.pk}").status_code == 404
    assert limited.post(f"/api/v1/runs/{there.pk}/cancel").status_code == 403  # a viewer there
    assert limited.get(ME).json()["administrator"] is False
    admin.refresh_from_db()
    assert admin.is_staff


def test_a_token_makes_none_that_may_do_more(user: Any, by_token: Make) -> None:
    own = Project.objects.get(memberships__user=user)
    limited = by_token(user, "write", days=5, project=own)
    made = limited.post(
        "/api/v1/tokens", {"name": "child", "scope": "write", "days": 90}, "application/json"
    )
    assert made.status_code == 201
    child = ApiToken.objects.get(pk=made.json()["id"])
    assert child.project == own
    assert child.expires_at <= timezone.now() + timedelta(days=5)
    more = limited.post("/api/v1/tokens", {"name": "c", "scope": "admin"}, "application/json")
    assert more.status_code == 422
    assert more.json()["field"] == "scope"


def test_use_is_written_down_once_a_minute(user: Any) -> None:
    token, _ = tokens.make(user, name="laptop")
    first = timezone.now()
    for seconds, expected in ((0, 0), (59, 0), (60, 60)):
        token.refresh_from_db()
        tokens.note_use(token, first + timedelta(seconds=seconds))
        token.refresh_from_db()
        assert token.last_used_at == first + timedelta(seconds=expected)


@pytest.mark.parametrize(
    ("field", "values"),
    [("name", {"name": " "}), ("name", {"name": "a\nb"}), ("days", {"days": 0}),
     ("days", {"days": 367}), ("scope", {"scope": "root"})],
)  # fmt: skip
def test_what_no_token_can_be_is_refused(user: Any, field: str, values: Any) -> None:
    with pytest.raises(UserError) as refused:
        tokens.make(user, **({"name": "laptop"} | values))
    assert refused.value.field == field
    assert not ApiToken.objects.exists()


def test_secrets_are_struck_out_of_logs(user: Any) -> None:
    _, secret = tokens.make(user, name="laptop")
    record = logging.LogRecord("a", logging.INFO, "", 0, "sent %s", (secret,), None)
    for formatter in (JsonFormatter(), TextFormatter()):
        assert secret not in formatter.format(record)


def test_the_page_shows_a_secret_once(client: Client, user: Any) -> None:
    client.force_login(user)
    form = {"name": "laptop", "scope": "read", "days": 30, "project": ""}
    made = client.post("/accounts/tokens/", form | {"password": "a long enough password"})
    secret = made.content.decode().split("<code>retort_")[1].split("</code>")[0]
    assert tokens.find(f"retort_{secret}") is not None
    assert made["Cache-Control"] == "no-store"
    assert secret not in client.get("/accounts/tokens/").content.decode()
    token = ApiToken.objects.get()
    assert client.post(f"/accounts/tokens/{token.pk}/revoke/").status_code == 302
    assert tokens.find(f"retort_{secret}") is None
    [entry] = AuditEntry.objects.filter(action="token.create")
    assert (entry.user_key, entry.kind, entry.key) == (user.pk, "apitoken", str(token.pk))


def test_an_open_browser_alone_makes_no_token(user: Any) -> None:
    """It would outlive the session, and a new password."""
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(user)
    browser.get("/accounts/tokens/")
    csrf = browser.cookies["csrftoken"].value
    form = {"name": "laptop", "scope": "admin", "days": 366, "project": ""}
    for password in ("", "a guess", *["another guess"] * 9):
        sent = form | {"password": password, "csrfmiddlewaretoken": csrf}
        answer = browser.post("/accounts/tokens/", sent)
        assert answer.status_code == 400
        assert "retort_" not in answer.content.decode()
    assert "Too many tries" in answer.content.decode()
    answer = browser.post(
        "/api/v1/tokens", {"name": "laptop"}, "application/json", headers={"X-CSRFToken": csrf}
    )
    assert answer.status_code == 403
    assert not ApiToken.objects.exists()


def test_nobody_revokes_anothers_token(client: Client, user: Any, admin: Any) -> None:
    token, _ = tokens.make(admin, name="laptop")
    client.force_login(user)
    assert client.post(f"/accounts/tokens/{token.pk}/revoke/").status_code == 404
    token.refresh_from_db()
    assert token.state == "live"


def test_whoever_asks_too_often_is_told_to_wait(
    user: Any, by_token: Make, monkeypatch: Any
) -> None:
    from webapp.api.service import api

    client = by_token(user, "read")
    throttles = [
        operation.throttle_objects[0]
        for router in api._get_bound_routers()
        for view in router.path_operations.values()
        for operation in view.operations
    ]
    monkeypatch.setattr(throttles[0].__class__, "num_requests", 0, raising=False)
    for each in throttles:
        monkeypatch.setattr(each, "num_requests", 2)
    statuses = [client.get(ME).status_code for _ in range(4)]
    assert statuses[-1] == 429
    assert int(client.get(ME)["Retry-After"]) > 0


def test_what_a_limited_token_makes_of_an_account_is_never_saved(admin: Any) -> None:
    admin.limit_to(Project.objects.get().pk)
    with pytest.raises(TypeError):
        admin.save()


def test_pieces_of_files_take_tokens_as_operations_do(user: Any, by_token: Make) -> None:
    upload = uploads.begin(user, "mine", [("config.json", 2), ("a.safetensors", 9)])
    file = upload.files.get(path="config.json")
    address = f"/api/v1/uploads/{upload.pk}/files/{file.pk}/"
    tus = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0"}
    how: dict[str, Any] = {"content_type": "application/offset+octet-stream", "headers": tus}
    assert Client().patch(address, b"{}", **how).status_code == 401
    assert by_token(user, "read").patch(address, b"{}", **how).status_code == 403
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(user)
    assert browser.patch(address, b"{}", **how).status_code == 401  # without its CSRF token
    assert by_token(user, "read").head(address, headers=tus)["Upload-Offset"] == "0"
    assert by_token(user).patch(address, b"{}", **how)["Upload-Offset"] == "2"
    metadata = "path " + base64.b64encode(b"more.json").decode()
    made = by_token(user).post(
        f"/api/v1/uploads/{upload.pk}/files/",
        headers={"Tus-Resumable": "1.0.0", "Upload-Length": "5", "Upload-Metadata": metadata},
    )
    assert made.status_code == 201
    assert "/api/v1/uploads/" in made["Location"]  # where tokens are taken, too
