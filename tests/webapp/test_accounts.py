"""Accounts: passwords, sessions, who may sign in, and guessing that becomes slow."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.hashers import check_password, get_hasher
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.webapp.samples import text_of
from tests.webapp.test_access import veiled
from tests.webapp.test_projects import client_of
from webapp.api import tokens
from webapp.core import accounts, audit, sessions, throttling
from webapp.core import mail as sending
from webapp.core.models import AuditEntry, Session, Tries, User

pytestmark = pytest.mark.django_db

PASSWORD = "a long enough password"
NEW = "another long password"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
LOGIN, RESET = "/accounts/login/", "/accounts/reset/"


class SlowBackend(EmailBackend):
    """A mail server that answers when it is let."""

    may_answer = threading.Event()

    def send_messages(self, messages: Any) -> int:
        assert self.may_answer.wait(30)
        return super().send_messages(messages)


@pytest.fixture
def ada(user: Any) -> User:
    user.email = "ada@example.org"
    user.save()
    return user


@pytest.fixture
def moments(monkeypatch: Any) -> Any:
    """A clock that is set forward by hand."""

    class Clock:
        now = datetime(2026, 1, 1, tzinfo=UTC)

        def forward(self, **delta: float) -> None:
            self.now += timedelta(**delta)

    clock = Clock()
    monkeypatch.setattr(throttling, "now", lambda: clock.now)
    return clock


def sign_in(name: str, password: str, address: str = "203.0.113.7", client: Any = None) -> Any:
    return (client or Client()).post(
        LOGIN, {"username": name, "password": password},
        REMOTE_ADDR=address, HTTP_USER_AGENT=FIREFOX,
    )  # fmt: skip


def test_one_sees_where_one_is_signed_in_and_ends_it(ada: User) -> None:
    here, there = Client(), Client()
    sign_in("ada", PASSWORD, "203.0.113.7", here)
    sign_in("ada", PASSWORD, "198.51.100.9", there)
    page = text_of(here.get("/accounts/"))
    assert "Firefox on Linux" in page
    assert "198.51.100.9" in page
    assert page.count("this one") == 1
    assert there.session.session_key not in page
    name = audit.session_name(there.session.session_key)
    assert here.post(reverse("core:end-session", args=[name])).status_code == 302
    assert there.get("/accounts/")["Location"].startswith(LOGIN)
    assert here.get("/accounts/").status_code == 200
    assert here.post(reverse("core:end-session", args=[name])).status_code == 404


def test_no_row_holds_the_cookie_that_lets_one_in(ada: User) -> None:
    client = client_of(ada)
    key = client.session.session_key
    row = Session.objects.get()
    assert key not in str(vars(row))
    for cookie in (row.session_key, key[:-1], key.upper(), ""):
        thief = Client()
        thief.cookies["sessionid"] = cookie
        assert thief.get("/accounts/").status_code == 302
    assert client.get("/accounts/").status_code == 200
    client.logout()
    assert not Session.objects.exists()


def test_nobody_ends_another_persons_session(ada: User, admin: User) -> None:
    hers = client_of(ada)
    name = audit.session_name(hers.session.session_key)
    assert client_of(admin).post(reverse("core:end-session", args=[name])).status_code == 404
    assert hers.get("/accounts/").status_code == 200


def test_all_other_sessions_end_at_once(ada: User, admin: User) -> None:
    here, there, other = client_of(ada), client_of(ada), client_of(admin)
    here.post(reverse("core:end-other-sessions"))
    assert here.get("/accounts/").status_code == 200
    assert there.get("/accounts/").status_code == 302
    assert other.get("/accounts/").status_code == 200


def test_a_session_tells_when_it_was_seen_without_writing_each_time(
    ada: User, django_assert_num_queries: Any
) -> None:
    client = client_of(ada)
    long_ago = timezone.now() - timedelta(hours=1)
    store = client.session
    store["seen_at"] = long_ago.isoformat()
    store.save()
    client.get("/accounts/", REMOTE_ADDR="203.0.113.8")
    row = Session.objects.get()
    assert row.seen_at is not None
    assert timezone.now() - row.seen_at < timedelta(minutes=1)
    assert row.address == "203.0.113.8"
    client.get("/accounts/", REMOTE_ADDR="203.0.113.9")
    assert Session.objects.get().address == "203.0.113.8"


def test_a_session_that_is_not_used_ends_and_its_row_goes(ada: User) -> None:
    client = client_of(ada)
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
    assert client.get("/accounts/").status_code == 302
    client_of(ada)
    sessions.forget_old()
    assert Session.objects.count() == 1


def test_a_new_password_ends_the_other_sessions(ada: User) -> None:
    here, there = client_of(ada), client_of(ada)
    data = {"old_password": "wrong", "new_password1": NEW, "new_password2": NEW}
    refused = here.post("/accounts/password/", data)
    assert refused.status_code == 400
    assert "Present password: that is not it" in refused.content.decode()
    assert here.post("/accounts/password/", data | {"old_password": PASSWORD}).status_code == 302
    assert here.get("/accounts/").status_code == 200
    assert there.get("/accounts/").status_code == 302
    assert Session.objects.filter(user=ada).count() == 1
    ada.refresh_from_db()
    assert ada.check_password(NEW)
    entry = AuditEntry.objects.get(action="account.password")
    assert entry.details == {"sessions_ended": 1}
    assert NEW not in str(list(AuditEntry.objects.values()))


@pytest.mark.parametrize("weak", ["short", "1234567890123", "password123", "ada@example.org"])
def test_weak_passwords_are_refused(ada: User, weak: str) -> None:
    data = {"old_password": PASSWORD, "new_password1": weak, "new_password2": weak}
    assert client_of(ada).post("/accounts/password/", data).status_code == 400


def test_the_mail_address_changes_only_with_the_password(ada: User) -> None:
    client = client_of(ada)
    wrong = client.post("/accounts/", {"email": "eve@example.org", "password": "guess"})
    assert wrong.status_code == 400
    ada.refresh_from_db()
    assert ada.email == "ada@example.org"
    client.post("/accounts/", {"email": "new@example.org", "password": PASSWORD})
    ada.refresh_from_db()
    assert ada.email == "new@example.org"


def test_a_stolen_session_cannot_guess_the_password(ada: User, moments: Any) -> None:
    client = client_of(ada)
    for _ in range(5):
        client.post("/accounts/", {"email": "", "password": "guess"})
    answer = client.post("/accounts/", {"email": "", "password": PASSWORD})
    assert "Too many tries" in answer.content.decode()


def test_a_mail_brings_a_link_that_works_once(ada: User, settings: Any, monkeypatch: Any) -> None:
    settings.EMAIL_CONFIGURED = True
    began: list[threading.Thread] = []
    send_later = sending.send_later
    monkeypatch.setattr(sending, "send_later", lambda m: began.append(send_later(m)))
    token = tokens.make(ada, name="laptop")[0]
    old = client_of(ada)
    client = Client()
    told = [client.post(RESET, {"email": who}) for who in ("ada@example.org", "eve@example.org")]
    for thread in began:
        thread.join()
    strip = r'nonce="[^"]*"|csrf[^>]*|x-csrftoken[^>]*'
    assert len({re.sub(strip, "", text_of(each)) for each in told}) == 1
    [sent] = mail.outbox
    assert sent.to == ["ada@example.org"]
    found = re.search(r"http://127\.0\.0\.1:8000(/accounts/reset/\S+)", sent.body)
    assert found is not None
    form = client.get(found[1])["Location"]
    assert client.post(form, {"new_password1": NEW, "new_password2": NEW}).status_code == 302
    ada.refresh_from_db()
    assert ada.check_password(NEW)
    assert old.get("/accounts/").status_code == 302
    assert "opens nothing" in text_of(client.get(found[1], follow=True))
    token.refresh_from_db()
    assert token.state == "live"


@pytest.mark.django_db(transaction=True)
def test_the_answer_does_not_wait_for_the_mail(ada: User, settings: Any) -> None:
    settings.EMAIL_CONFIGURED = True
    settings.EMAIL_BACKEND = f"{__name__}.SlowBackend"
    SlowBackend.may_answer.clear()
    assert Client().post(RESET, {"email": "ada@example.org"}).status_code == 200
    assert mail.outbox == []
    SlowBackend.may_answer.set()
    for thread in threading.enumerate():
        if thread.name == "mail":
            thread.join(30)
    assert len(mail.outbox) == 1


def test_nobody_learns_who_has_an_account(ada: User, settings: Any, monkeypatch: Any) -> None:
    """The same words, and a password hashed once, for a name that there is and one that is none."""
    settings.EMAIL_CONFIGURED = True
    monkeypatch.setattr(sending, "send_later", lambda messages: None)
    User.objects.create_user("gone", password=PASSWORD, is_active=False)
    hashed: list[str] = []
    hasher = get_hasher()
    plain = type(hasher).encode

    def counted(self: Any, password: str, *others: Any) -> Any:
        hashed.append(password)
        return plain(self, password, *others)

    monkeypatch.setattr(type(hasher), "encode", counted)

    def told(answer: Any, typed: str) -> tuple[int, str]:
        return answer.status_code, veiled(answer.content).replace(f'value="{typed}"', "")

    names = ("ada", "bob", "gone")
    pages = {told(sign_in(name, "a guess at it"), name) for name in names}
    assert len(pages) == 1
    assert hashed == ["a guess at it"] * len(names)
    mails = ("ada@example.org", "bob@example.org", "gone@example.org")
    assert len({told(Client().post(RESET, {"email": each}), each) for each in mails}) == 1


def test_nobody_is_flooded_with_links(ada: User, settings: Any, monkeypatch: Any) -> None:
    settings.EMAIL_CONFIGURED = True
    sent: list[Any] = []
    monkeypatch.setattr(sending, "send_later", sent.extend)
    for number in range(12):
        client = Client(REMOTE_ADDR=f"203.0.113.{number}")
        assert client.post(RESET, {"email": "ada@example.org"}).status_code == 200
    assert len(sent) == 5


def test_without_mail_an_administrator_hands_a_link_over(ada: User, admin: User) -> None:
    assert "ask an administrator" in text_of(Client().get(RESET))
    assert Client().post(RESET, {"email": "ada@example.org"}).status_code == 400
    page = text_of(client_of(admin).post(reverse("core:make-reset-link", args=[ada.pk])))
    link = re.search(r"http://127\.0\.0\.1:8000(/accounts/reset/[^<\s]+)", page)
    assert link is not None
    assert "For the account <strong>ada</strong>" in text_of(Client().get(link[1], follow=True))


def test_the_command_prints_a_link(ada: User, capsys: Any) -> None:
    call_command("reset_link", "ada")
    path = capsys.readouterr().out.strip().removeprefix("http://127.0.0.1:8000")
    assert "<strong>ada</strong>" in text_of(Client().get(path, follow=True))
    assert AuditEntry.objects.get().through == "command"
    with pytest.raises(CommandError, match="nobody is called"):
        call_command("reset_link", "eve")
    User.objects.update(is_active=False)
    with pytest.raises(CommandError, match="deactivated"):
        call_command("reset_link", "ada")


def test_a_deactivated_account_is_out_at_once(ada: User, admin: User) -> None:
    hers, root = client_of(ada), client_of(admin)
    _, secret = tokens.make(ada, name="laptop")
    assert root.post(reverse("core:deactivate", args=[ada.pk])).status_code == 302
    assert hers.get("/accounts/").status_code == 302
    assert tokens.find(secret) is None
    assert not Session.objects.filter(user=ada).exists()
    assert sign_in("ada", PASSWORD).status_code == 200  # the form again
    root.post(reverse("core:activate", args=[ada.pk]))
    assert sign_in("ada", PASSWORD).status_code == 302
    assert tokens.find(secret) is None
    own = root.post(reverse("core:deactivate", args=[admin.pk]), follow=True)
    assert "your own" in text_of(own)


def test_only_administrators_decide_about_accounts(ada: User, admin: User) -> None:
    client = client_of(ada)
    assert client.get("/accounts/people/").status_code == 403
    for name in ("deactivate", "activate", "make-reset-link"):
        assert client.post(reverse(f"core:{name}", args=[admin.pk])).status_code == 403
    admin.refresh_from_db()
    assert admin.is_active


def test_guessing_becomes_slow(ada: User, moments: Any) -> None:
    for _ in range(5):
        assert sign_in("ada", "guess").status_code == 200
    answer = sign_in("ada", PASSWORD)
    assert answer.status_code == 429
    assert "wait 31 seconds, then try again" in answer.content.decode()
    moments.forward(seconds=29)
    assert sign_in("ada", PASSWORD).status_code == 429
    moments.forward(seconds=1)
    assert sign_in("ada", "guess").status_code == 200
    moments.forward(seconds=59)  # the wait has doubled
    assert sign_in("ada", PASSWORD).status_code == 429
    moments.forward(seconds=1)
    assert sign_in("ada", PASSWORD).status_code == 302
    assert sign_in("ada", "guess").status_code == 200  # and begins anew


def test_guesses_of_a_day_are_few(ada: User, moments: Any) -> None:
    """A property of the whole: what a guesser who never rests gets out of a day."""
    account, made = throttling.of_account("sign-in", "ada", "203.0.113.7"), 0
    until = moments.now + timedelta(days=1)
    while moments.now < until:
        wait = throttling.begin([account])
        made += wait is None
        moments.forward(seconds=wait.total_seconds() if wait else 0.1)
    assert 90 < made < 110


def test_a_stranger_locks_nobody_out_from_elsewhere(ada: User, moments: Any) -> None:
    for _ in range(10):
        sign_in("ada", "guess", "198.51.100.9")
    assert sign_in("ada", PASSWORD, "198.51.100.9").status_code == 429
    assert sign_in("ada", PASSWORD, "203.0.113.7").status_code == 302


def test_an_address_that_tries_many_accounts_has_to_wait(ada: User, moments: Any) -> None:
    for number in range(50):
        assert sign_in(f"nobody{number}", "guess").status_code == 200
    assert sign_in("nobody", "guess").status_code == 429
    assert sign_in("ada", PASSWORD, "203.0.113.8").status_code == 302


def test_who_signs_in_rightly_is_not_counted(ada: User, moments: Any) -> None:
    for _ in range(60):
        assert sign_in("ada", PASSWORD).status_code == 302


def test_a_provider_s_customer_is_one_address(ada: User, moments: Any) -> None:
    for number in range(5):
        sign_in("ada", "guess", f"2001:db8::{number}")
    assert sign_in("ada", PASSWORD, "2001:db8::ffff").status_code == 429
    assert sign_in("ada", PASSWORD, "2001:db8:0:1::1").status_code == 302


@pytest.mark.django_db(transaction=True)
def test_many_tries_at_once_are_no_way_around() -> None:
    counts = [
        throttling.of_account("sign-in", "ada", "203.0.113.7"),
        throttling.of_address("sign-in", "203.0.113.7"),
    ]
    ready = threading.Barrier(12)

    def one_try(_: int) -> bool:
        ready.wait(30)
        try:
            return throttling.begin(counts) is None
        finally:
            connection.close()

    with ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(one_try, range(12))) == 5


def test_tries_are_forgotten(ada: User, moments: Any) -> None:
    for _ in range(9):
        sign_in("ada", "guess")
    moments.forward(hours=25)
    assert throttling.forget_old() == 2
    assert Tries.objects.count() == 0


def test_refusals_are_told_without_what_was_typed(ada: User) -> None:
    sign_in("ada", "guess")
    sign_in("my secret in the wrong field", "guess")
    unknown, known = AuditEntry.objects.all()
    assert (known.action, known.name, known.user_name) == ("session.refuse", "ada", "")
    assert (unknown.action, unknown.name, unknown.details) == ("session.refuse", "", {})


def test_cookies_are_out_of_scripts_reach(ada: User, settings: Any) -> None:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
    client = Client()
    client.get(LOGIN)
    sign_in("ada", PASSWORD, client=client)
    for name in ("sessionid", "csrftoken"):
        cookie = client.cookies[name]
        assert cookie["httponly"]
        assert cookie["secure"]
        assert cookie["samesite"] == "Lax"
    assert not check_password(PASSWORD, client.cookies["sessionid"].value)


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (FIREFOX, "Firefox on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0) Chrome/120.0 Safari/537.36 Edg/120.0", "Edge on Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Safari/604.1", "Safari on iPhone"),
        ("curl/8.5", "curl/8.5"),
        ("", "unknown"),
    ],
)
def test_a_browser_has_a_name(agent: str, name: str) -> None:
    assert sessions.name_of(agent) == name


def test_an_administrator_is_made_only_where_nobody_has_an_account(db: None) -> None:
    made = accounts.first_administrator()
    assert made is not None
    root, password = made
    assert root.is_superuser
    assert root.check_password(password)
    assert accounts.first_administrator() is None
    assert User.objects.count() == 1
