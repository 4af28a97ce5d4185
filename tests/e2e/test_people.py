"""The account's menu, and the pages of people, projects and what was done, with long names."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.test_pages import LOOKS, faults
from tests.e2e.walking import assert_clean, assert_no_overflow
from tests.webapp.test_projects import person
from webapp.core import accounts, audit
from webapp.projects import invitations
from webapp.projects.models import Project, Role

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PAGES = ("/accounts/people/", "/accounts/audit/")  # the others are in test_pages
HERE = "http://127.0.0.1:8000"


@pytest.fixture
def addresses(admin: Any) -> dict[str, str]:
    """A project with long names in it, an invitation and a link for a new password."""
    name = "x" * 100
    member = person("y" * 150, **{name: Role.ADMIN})
    project = Project.objects.get(name=name)
    audit.record(member, "run.cancel", project, why="z" * 300)
    _, link = invitations.invite(admin, project, f"{'a' * 60}@{'b' * 60}.org", Role.VIEWER)
    return {
        "project": f"/projects/{project.pk}/",
        "invitation": link.removeprefix(HERE),
        "reset": accounts.reset_link(admin).removeprefix(HERE),
    }


def test_people_s_pages_are_accessible_and_fit(
    addresses: dict[str, str], browser: Any, live_server: Any
) -> None:
    context, seen = browser
    page = context.new_page()
    found = []

    def look(address: str) -> None:
        page.goto(live_server.url + address)
        page.wait_for_load_state("networkidle")
        found.extend(faults(page))
        try:
            assert_no_overflow(page)
        except AssertionError as error:
            found.append(f"{address}: {error}")

    for width, scheme in LOOKS:
        context.clear_cookies()
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        for address in ("/accounts/login/", "/accounts/reset/", *list(addresses.values())[1:]):
            look(address)
        page.goto(live_server.url + "/accounts/login/")
        page.fill("#id_username", "root")
        page.fill("#id_password", "a long enough password")
        page.click("main button")
        page.wait_for_url(live_server.url + "/")
        for address in (*PAGES, addresses["project"], addresses["invitation"]):
            look(address)
    assert not found, "\n".join(found)
    menu = page.locator("[data-menu]")
    for leave in (lambda: page.keyboard.press("Escape"), lambda: page.locator("h1").click()):
        menu.locator("summary").press("Enter")
        assert menu.get_by_role("link", name="Audit log").is_visible()
        leave()
        assert not menu.get_by_role("link", name="Audit log").is_visible()
    menu.locator("summary").click()
    menu.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/accounts/login/")
    assert_clean(seen)
