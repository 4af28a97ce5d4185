"""The content security policy: what may run on which answer, and that templates keep to it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

TEMPLATES = sorted((settings.BASE_DIR / "webapp" / "templates").rglob("*.html"))
NONCE = 'nonce="{{ request.csp_nonce }}"'
# A data block is not run: `json_script` writes it.
_DATA = re.compile(r'type="application/json"')


def directives(policy: str) -> dict[str, str]:
    pairs = (part.strip().partition(" ") for part in policy.split(";"))
    return {name: sources for name, _, sources in pairs}


class _Faults(HTMLParser):
    """What in a page the policy would refuse, or should have."""

    def __init__(self, nonce: str) -> None:
        super().__init__()
        self.nonce = nonce
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [f"<{tag}> of a stranger" for _ in given if tag == "zq-hole"]
        self.found += [f"<{tag} {name}>" for name in given if name == "zqattr" or "hx-on" in name]
        self.found += [f"<{tag} {name}>" for name in given if name.startswith("on")]
        self.found += [f"<{tag} style>"] if "style" in given or tag == "style" else []
        self.found += [
            f"<{tag} {name}={value}>"
            for name, value in given.items()
            if (value or "").lower().lstrip().startswith("javascript:")
        ]
        if tag in ("base", "object", "embed", "iframe", "applet"):
            self.found.append(f"<{tag}>")
        ours = given.get("nonce") == self.nonce and (given.get("src") or "").startswith("/")
        if tag == "script" and given.get("type") != "application/json" and not ours:
            self.found.append(f"<script {given}>")


def faults_of(page: str, nonce: str) -> list[str]:
    """Scripts without the nonce or from elsewhere, handlers, styles and frames of a page."""
    parser = _Faults(nonce)
    parser.feed(page)
    return parser.found


def nonce_of(policy: str) -> str:
    found = re.fullmatch(r"'nonce-([A-Za-z0-9_-]{20,})'", directives(policy)["script-src"])
    assert found, policy
    return found[1]


@pytest.mark.django_db
def test_a_page_runs_scripts_of_its_own_nonce_only(client: Client) -> None:
    nonces = set()
    for _ in range(3):
        answer = client.get(reverse("core:login"))
        policy = directives(answer["Content-Security-Policy"])
        nonce = nonce_of(answer["Content-Security-Policy"])
        nonces.add(nonce)
        assert policy["default-src"] == policy["object-src"] == policy["base-uri"] == "'none'"
        assert policy["frame-ancestors"] == policy["script-src-attr"] == "'none'"
        assert policy["style-src"] == policy["form-action"] == "'self'"
        assert f'nonce="{nonce}"' in answer.content.decode()
        assert faults_of(answer.content.decode(), nonce) == []
    assert len(nonces) == 3, "a nonce was given twice"


@pytest.mark.django_db
def test_error_pages_keep_it(client: Client) -> None:
    client.raise_request_exception = False
    for answer, status in (
        (client.get("/no/such/page/"), 404),
        (client.get("/accounts/login/", headers={"host": "elsewhere.example"}), 400),
        (Client(enforce_csrf_checks=True).post(reverse("core:login")), 403),
    ):
        assert answer.status_code == status
        nonce = nonce_of(answer["Content-Security-Policy"])
        assert faults_of(answer.content.decode(), nonce) == []


@pytest.mark.django_db
@pytest.mark.parametrize("address", ["/healthz", "/static/js/live.js", "/static/img/mark.svg"])
def test_what_is_no_page_may_do_nothing(client: Client, address: str) -> None:
    answer = client.get(address)
    answer.close()
    policy = directives(answer["Content-Security-Policy"])
    assert policy["default-src"] == "'none'"
    assert "sandbox" in policy
    assert "script-src" not in policy
    assert answer["X-Content-Type-Options"] == "nosniff"


@pytest.mark.django_db
def test_static_files_stay_cacheable(client: Client) -> None:
    answer = client.get("/static/vendor/htmx.min.js")
    answer.close()
    assert "max-age" in answer["Cache-Control"]
    assert "nonce" not in answer["Content-Security-Policy"]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.name))
def test_templates_hold_nothing_that_the_policy_refuses(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    scripts = re.findall(r"<script\b[^>]*>", text)
    assert [tag for tag in scripts if NONCE not in tag and not _DATA.search(tag)] == []
    tags = re.findall(r"<[a-z][^>]*>", text)
    assert [tag for tag in tags if re.search(r"""\s(on[a-z]+|style)\s*=""", tag)] == []
    assert not re.search(r"<style|javascript:|\|safe\b|autoescape off|hx-on|hx-vars|js:", text)


def test_htmx_evaluates_nothing() -> None:
    base = (settings.BASE_DIR / "webapp" / "templates" / "base.html").read_text(encoding="utf-8")
    assert '"allowEval": false' in base
    assert '"selfRequestsOnly": true' in base
    assert "inlineScriptNonce" not in base, "htmx would give swapped-in scripts the nonce"


def test_scripts_of_our_own_build_no_page_from_text() -> None:
    for path in (settings.BASE_DIR / "webapp" / "static" / "js").glob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(
            r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|Function)\b\s*[=(]",
            text,
        ), path.name
