"""From ticked rows of the leaderboard to one problem side by side, as a person does it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.walking import assert_clean, assert_no_overflow, sign_in

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_ticked_rows_are_compared_down_to_one_problem(browser: Any, live_server: Any) -> None:
    context, seen = browser
    page = context.new_page()
    sign_in(page, live_server.url + "/")
    page.goto(live_server.url + "/?benchmark=arithmetic&published=no")
    page.click("summary:has-text('Columns and filters')")
    page.get_by_label("tokens", exact=True).first.check()
    page.get_by_role("button", name="Show").click()
    assert "tokens" in page.locator("thead").inner_text()
    page.keyboard.press("Tab")
    for name in ("tiny-base", "tiny-student"):
        page.get_by_label(f"Compare {name}").focus()
        page.keyboard.press("Space")
    page.get_by_role("button", name="Compare the ticked").click()
    assert page.locator("h1").inner_text() == "2 evaluations compared"
    page.wait_for_selector(".chart svg.main-svg")
    assert page.locator(".chart svg.main-svg").count() >= 3
    page.get_by_role("link", name="only changes").click()
    page.locator("#problems tbody th a").first.click()
    assert page.locator("article.sample").count() == 2
    page.get_by_role("link", name="next sample of B").click()
    assert "sampleB=1" in page.url
    assert_no_overflow(page)
    assert_clean(seen)


def test_a_chart_that_cannot_be_drawn_shows_its_table(browser: Any, live_server: Any) -> None:
    context, seen = browser
    page = context.new_page()
    sign_in(page, live_server.url + "/")
    page.goto(live_server.url + "/?benchmark=arithmetic&published=no")
    for name in ("tiny-base", "tiny-student"):
        page.get_by_label(f"Compare {name}").check()
    page.route("**/plotly*", lambda route: route.fulfill(body="", content_type="text/javascript"))
    page.get_by_role("button", name="Compare the ticked").click()
    page.wait_for_selector("#pass-k-table[open] td")
    assert page.locator("#pass-k-table td").first.is_visible()
    assert page.locator("[data-chart]:visible").count() == 0
    assert_clean(seen)
