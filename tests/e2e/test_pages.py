"""Every page, phone-wide and wide, light and dark: accessible, no wider than the window, light.

A page that is added is a line in ``PAGES``; an address that is none, a line in ``NOT_PAGES``.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from playwright.sync_api import Page

from scripts.wire import Wire
from tests.e2e.conftest import PROBLEMS
from tests.e2e.walking import assert_clean, assert_no_overflow, sign_in
from webapp.benchmarks.services import install_prompt_set
from webapp.endpoints import services as endpoints
from webapp.runs.models import Evaluation, Run

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
STATIC = ROOT / "webapp" / "static"
MOST_BYTES = 300_000  # of a page without plotly
LOOKS = ((390, "dark"), (1280, "light"))
SERIOUS = ("serious", "critical")

# The address's name, with the values of its parts (named after ``places``) and its query.
PAGES: dict[str, tuple[str, Mapping[str, str], str]] = {
    "home": ("leaderboard:index", {}, ""),
    "leaderboard of a benchmark": ("leaderboard:index", {}, "?benchmark=arithmetic"),
    "comparison": ("leaderboard:compare", {}, "?e={base}&e={evaluation}"),
    "comparison of a problem": (
        "leaderboard:compare_problem", {"problem": "problem"}, "?e={base}&e={evaluation}"
    ),
    "evaluation": ("leaderboard:evaluation", {"pk": "evaluation"}, ""),
    "problem": ("leaderboard:problem", {"pk": "evaluation", "problem": "problem"}, ""),
    "disputes": ("leaderboard:disputes", {"pk": "evaluation"}, ""),
    "reports": ("leaderboard:reports", {"pk": "evaluation"}, ""),
    "signing key": ("leaderboard:signing_key", {}, ""),
    "benchmarks": ("benchmarks:index", {}, ""),
    "contests": ("benchmarks:contests", {}, ""),
    "benchmark": ("benchmarks:detail", {"pk": "benchmark"}, ""),
    "prompt set": ("benchmarks:prompt_set", {"pk": "prompt_set"}, ""),
    "checkpoints": ("checkpoints:index", {}, ""),
    "upload": ("checkpoints:upload", {}, ""),
    "from the hub": ("checkpoints:hub", {}, ""),
    "checkpoint": ("checkpoints:detail", {"pk": "checkpoint"}, ""),
    "hostile checkpoint": ("checkpoints:detail", {"pk": "hostile"}, ""),
    "description of a checkpoint": ("checkpoints:edit", {"pk": "checkpoint"}, ""),
    "lineage of a run": ("checkpoints:run-lineage", {"pk": "finished"}, ""),
    "storage": ("housekeeping:index", {}, ""),
    "what hangs on a checkpoint": ("housekeeping:checkpoint", {"pk": "checkpoint"}, ""),
    "what hangs on a run": ("housekeeping:run", {"pk": "finished"}, ""),
    "endpoints": ("endpoints:index", {}, ""),
    "register an endpoint": ("endpoints:register", {}, ""),
    "endpoint": ("endpoints:detail", {"pk": "endpoint"}, ""),
    "notifications": ("notifications:settings", {}, ""),
    "account": ("core:profile", {}, ""),
    "password": ("core:password", {}, ""),
    "API tokens": ("tokens:index", {}, ""),
    "API": ("api:docs", {}, ""),
    "projects": ("projects:index", {}, ""),
    "project": ("projects:detail", {"pk": "project"}, ""),
    "runs": ("runs:index", {}, ""),
    "distil": ("runs:distil", {}, ""),
    "evaluate": ("runs:evaluate", {}, ""),
    "import": ("runs:import", {}, ""),
    "workers": ("runs:workers", {}, ""),
    "costs": ("costs:index", {}, ""),
    "turns": ("runs:turns", {}, ""),
    "run under way": ("runs:detail", {"pk": "running"}, ""),
    "run that trains": ("runs:detail", {"pk": "training"}, ""),
    "run that is finished": ("runs:detail", {"pk": "finished"}, ""),
}  # fmt: skip

FILE, PART, ACTION, MACHINE = "a file", "a part of a page", "an action", "for machines"
NOT_PAGES: dict[str, str] = {
    "healthz": MACHINE, "readyz": MACHINE, "metrics": MACHINE,
    "core:login": "walked by signing in", "core:logout": ACTION,
    "core:reset": "for who is signed out", "core:reset-confirm": "for who is signed out",
    "core:people": "an administrator's: test_people", "core:audit": "the same",
    "tokens:revoke": ACTION, "api:openapi": FILE, "api:nothing": MACHINE,
    "api:tus-files": MACHINE, "api:tus-file": MACHINE,
    "core:audit-csv": FILE, "core:end-session": ACTION, "core:end-other-sessions": ACTION,
    "core:deactivate": ACTION, "core:activate": ACTION, "core:make-reset-link": ACTION,
    "leaderboard:csv": FILE, "leaderboard:compare_csv": FILE,
    "leaderboard:compare_problems_csv": FILE, "leaderboard:raw": FILE, "leaderboard:part": PART,
    "leaderboard:dispute": ACTION, "leaderboard:withdraw": ACTION,
    "leaderboard:disputed_score": PART, "leaderboard:disputes_jsonl": FILE,
    "leaderboard:reports_live": PART, "leaderboard:ask_report": ACTION,
    "leaderboard:download": FILE, "leaderboard:report_html": FILE, "leaderboard:report_json": FILE,
    "leaderboard:report_csv": FILE, "leaderboard:report_parquet": FILE,
    "checkpoints:card": "a student's: test_bringing_in", "checkpoints:tar": FILE,
    "housekeeping:disk": "an administrator's", "checkpoints:folder": "an administrator's",
    "checkpoints:begin": MACHINE,
    "checkpoints:resume": PART, "checkpoints:upload-live": PART, "checkpoints:finish": ACTION,
    "checkpoints:discard": ACTION, "checkpoints:tus-files": MACHINE,
    "checkpoints:tus-file": MACHINE, "endpoints:test": ACTION, "endpoints:delete": ACTION,
    "projects:change": ACTION, "projects:delete": ACTION, "projects:invite": ACTION,
    "projects:revoke-invitation": ACTION, "projects:add-member": ACTION, "projects:role": ACTION,
    "projects:remove-member": ACTION, "projects:invitation-link": "leads to projects:invitation",
    "projects:invitation": "behind a link: test_invitations",
    "notifications:test": ACTION, "runs:index_live": PART, "runs:distil_recipe": PART,
    "runs:distil_estimate": PART, "runs:distil_check": ACTION, "runs:evaluate_plan": PART,
    "runs:workers_live": PART, "runs:drain": ACTION, "runs:live": PART, "runs:checked": PART,
    "runs:priority": ACTION, "runs:limit": ACTION,
    "runs:latest": PART, "runs:examples": PART, "runs:cancel": ACTION, "runs:retry": ACTION,
}  # fmt: skip


def names(resolver: URLResolver, space: str = "") -> Iterator[str]:
    """The full name of every address below ``resolver``."""
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLPattern):
            yield f"{space}{pattern.name}"
        else:
            yield from names(pattern, f"{space}{pattern.namespace}:" if pattern.namespace else "")


def test_every_address_is_walked_or_said_to_be_no_page() -> None:
    known = {name for name, _, _ in PAGES.values()} | NOT_PAGES.keys()
    found = {name for name in names(get_resolver()) if not name.startswith("api:v1:")}
    assert found == known


@pytest.fixture
def places(rows: Any, running: Run, training: Run, user: Any) -> dict[str, int]:
    """What the parts of addresses stand for."""
    evaluations = {each.checkpoint.name: each for each in Evaluation.objects.all()}
    found = evaluations["tiny-student"]
    hostile = next(each for name, each in evaluations.items() if name.startswith("hostile"))
    endpoint = endpoints.register(
        owner=user, name="served/r1", base_url="http://127.0.0.1:9/v1", model="deepseek-r1"
    )
    return {
        "base": evaluations["tiny-base"].pk,
        "evaluation": found.pk,
        "problem": found.benchmark.problems.earliest("pk").pk,
        "benchmark": found.benchmark_id,
        "prompt_set": install_prompt_set("prompts", PROBLEMS).pk,
        "checkpoint": found.checkpoint_id,
        "hostile": hostile.checkpoint_id,
        "endpoint": endpoint.pk,
        "running": running.pk,
        "training": training.pk,
        "finished": found.run_id,
        "project": found.run.project_id,
    }


@cache
def axe_source() -> str:
    assert AXE.exists(), "axe-core is missing: run npm install"
    return AXE.read_text(encoding="utf-8")


def faults(page: Page) -> list[str]:
    """What axe-core finds serious or worse: the rule and the first element that breaks it."""
    page.evaluate(axe_source())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{page.url} {each['id']}: {each['nodes'][0]['html'][:200]} {each['nodes'][0].get('any')}"
        for each in found["violations"]
        if each["impact"] in SERIOUS
    ]


def weight(sent: Mapping[str, float]) -> float:
    """Bytes without plotly's, as the product's server sends them: static files compressed.

    The test's server sends them as they are; test_static_files_are_sent_compressed holds the
    product's to this.
    """
    total = 0.0
    for address, size in sent.items():
        path = urlsplit(address).path
        small = STATIC / f"{path.removeprefix('/static/')}.gz"
        if "plotly" not in path:
            total += small.stat().st_size if small.exists() else size
    return total


def address_of(page: str, places: Mapping[str, int]) -> str:
    name, parts, query = PAGES[page]
    kwargs = {part: places[place] for part, place in parts.items()}
    return reverse(name, kwargs=kwargs) + query.format(**places)


def test_static_files_are_sent_compressed(client: Client) -> None:
    for name in ("katex.min.js", "plotly-basic.min.js"):
        answer = client.get(f"/static/vendor/{name}", headers={"accept-encoding": "gzip"})
        body = b"".join(answer.streaming_content)  # type: ignore[attr-defined]
        assert answer["Content-Encoding"] == "gzip"
        assert gzip.decompress(body) == (STATIC / "vendor" / name).read_bytes()


def test_every_page_is_accessible_fits_and_is_light(
    places: dict[str, int], browser: Any, live_server: Any
) -> None:
    context, seen = browser
    page = context.new_page()
    wire = Wire(page)
    sign_in(page, live_server.url + "/")
    found = []
    for width, scheme in LOOKS:
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        for name in PAGES:
            wire.forget()
            answer = page.goto(live_server.url + address_of(name, places))
            page.wait_for_load_state("networkidle")
            assert answer is not None
            assert answer.status == 200, name
            if weight(wire.sent) > MOST_BYTES:
                found.append(f"{name}: {weight(wire.sent):.0f} bytes")
            try:
                assert_no_overflow(page)
            except AssertionError as error:
                found.append(f"{name}: {error}")
            found += [f"{name} ({scheme}) {fault}" for fault in faults(page)]
    assert not found, "\n".join(found)
    assert_clean(seen)
