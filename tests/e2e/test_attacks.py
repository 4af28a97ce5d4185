"""The hostile installation in a real browser: nothing runs, nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.e2e.conftest import CHROMIUM
from tests.webapp import access_world
from tests.webapp.access_table import ACTS
from tests.webapp.access_world import ADMIN, World
from tests.webapp.attacks import hostile

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

# Before any script of the page: what the policy refused, and what spoke up.
LISTEN = """
window.refused = [];
document.addEventListener('securitypolicyviolation', (event) => {
  window.refused.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`);
});
"""
FILES = ("csv", "json", "parquet", "raw", "report_", "tar", "download", "healthz", "readyz",
         "metrics", "pem", "openapi")  # fmt: skip


@pytest.fixture
def world(settings: Any, tmp_path: Path) -> World:
    settings.MEDIA_ROOT = tmp_path / "files"
    return hostile.build(access_world.build())


@pytest.fixture
def visits(world: World) -> list[str]:
    """Addresses, made before the browser starts: its loop refuses database work."""
    return sorted(
        {
            act.address(world)
            for act in ACTS
            if act.method == "get" and not any(word in f"{act.name}{act.query}" for word in FILES)
        }
    )


@pytest.fixture
def page(world: World, visits: list[str], live_server: Any) -> Iterator[tuple[Page, list[str]]]:
    """A page in which an admin of the project is signed in, and what it did wrong."""
    if not CHROMIUM.exists():
        pytest.fail(f"{CHROMIUM} is missing: run sh scripts/system_packages.sh chromium")
    session = world.client(ADMIN).cookies["sessionid"].value
    wrong: list[str] = []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        context = started.new_context()
        context.set_default_timeout(15_000)
        context.add_cookies([{"name": "sessionid", "value": session, "url": live_server.url}])
        context.add_init_script(LISTEN)
        made = context.new_page()

        def asked(request: Any) -> None:
            if not request.url.startswith((live_server.url, "data:", "blob:")):
                wrong.append(f"{made.url} loads {request.url}")

        def opened(dialog: Any) -> None:
            wrong.append(f"{made.url} opens a dialog")
            dialog.dismiss()

        made.on("request", asked)
        made.on("dialog", opened)
        made.on("pageerror", lambda error: wrong.append(f"{made.url}: {error}"))
        yield made, wrong
        context.close()
        started.close()


def test_a_browser_is_made_to_do_nothing(
    page: tuple[Page, list[str]], visits: list[str], live_server: Any
) -> None:
    made, wrong = page
    shown = 0
    for address in visits:
        answer = made.goto(live_server.url + address)
        assert answer is not None
        assert answer.status < 500, address
        assert "/accounts/login/" not in made.url, address
        made.wait_for_load_state("networkidle")
        told = made.evaluate(
            "({stolen: window.stolen, refused: window.refused, title: document.title,"
            " holes: document.querySelectorAll('zq-hole, [zqattr]').length,"
            " text: document.documentElement.textContent.includes('zq-hole')})"
        )
        assert told["stolen"] is None, address
        assert told["holes"] == 0, address
        wrong += [f"{address}: {each}" for each in told["refused"]]
        shown += told["text"]
    # That silence means something: what somebody smuggles in is refused, and heard of.
    made.evaluate(
        "() => { const each = document.createElement('script');"
        " each.textContent = 'window.stolen = 1'; document.body.append(each);"
        " document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"stolen=1\">'); }"
    )
    made.wait_for_function("window.refused.length >= 2")
    assert made.evaluate("window.stolen") is None
    assert not wrong, "\n".join(wrong)
    assert shown > 30, f"the words stood on {shown} of {len(visits)} pages only"
