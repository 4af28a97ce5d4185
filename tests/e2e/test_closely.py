"""Looking closely in a real browser: marks, keys, the search, a dispute; and maths that attacks."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.walking import assert_clean, assert_no_overflow, elsewhere, sign_in
from tests.webapp import samples
from webapp.leaderboard import desk
from webapp.runs.models import Evaluation

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

# Formulae that would keep KaTeX busy for minutes, were each of them drawn.
HEAVY = ("$" + "\\frac{1}{" * 60 + "x" + "}" * 60 + "$ ") * 4000


def _thinker(rng: Any, problem: Any, sample: int) -> Any:
    thoughts = "".join(f"step {number}, a < b. " for number in range(3000)) + "A needle. <b>"
    outcome = samples.Outcome.CORRECT if sample % 3 == 0 else samples.Outcome.WRONG
    answer = problem.answer if sample % 3 == 0 else str(int(problem.answer) + 1)
    text = f"<think>\n{thoughts}\n</think>\nSo it is $\\boxed{{{answer}}}$."
    return text, outcome, answer, "compared as integers"


def _heavy(rng: Any, problem: Any, sample: int) -> Any:
    return HEAVY[:19_000], samples.Outcome.NO_ANSWER, None, "none"


@pytest.fixture
def student(rows: Any, user: Any) -> Evaluation:
    """A student with long thoughts, whose parent is measured too."""
    parent = rows.checkpoint
    child = samples.make_checkpoint(user, "child", parent=parent)
    problems = samples.arithmetic(8)
    found = samples.make_evaluation(user, child, rows.benchmark, problems, samples=8, draw=_thinker)
    found.first_problem = rows.benchmark.problems.first().pk  # type: ignore[attr-defined]
    heavy = samples.make_checkpoint(user, "heavy")
    samples.make_evaluation(user, heavy, rows.benchmark, problems, samples=1, draw=_heavy)
    return found


@pytest.fixture
def page(student: Evaluation, browser: Any, live_server: Any) -> Page:
    context, _ = browser
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page: Page = context.new_page()
    sign_in(page, live_server.url)
    return page


def address_of(found: Evaluation, live_server: Any) -> str:
    return f"{live_server.url}/evaluations/{found.pk}/"


def test_a_mark_opens_its_sample_and_keys_step_on(
    page: Page, student: Evaluation, browser: Any, live_server: Any
) -> None:
    page.goto(address_of(student, live_server))
    assert_no_overflow(page)
    strip = page.locator(".cells").first
    strip.scroll_into_view_if_needed()
    box = strip.locator("svg").bounding_box()
    assert box is not None
    strip.locator("svg").click(position={"x": box["width"] * 4.5 / 8, "y": box["height"] / 2})
    expect(page.locator(".pinned")).to_contain_text("sample 4 of 8")
    page.keyboard.press("j")
    expect(page.locator(".pinned")).to_contain_text("sample 5 of 8")
    page.keyboard.press("w")  # 6 is right
    expect(page.locator(".pinned")).to_contain_text("sample 7 of 8")
    page.keyboard.press("j")  # on into the next problem
    expect(page.locator("h1")).to_have_text("sum-001")
    expect(page.locator(".pinned")).to_contain_text("sample 0 of 8")
    page.keyboard.press("k")
    expect(page.locator(".pinned")).to_contain_text("sample 7 of 8")
    page.keyboard.press("W")
    expect(page.locator(".pinned")).to_contain_text("sample 5 of 8")
    page.go_back()
    page.goto(address_of(student, live_server))
    strip = page.locator(".cells").first
    strip.focus()  # and without a mouse
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    expect(page.locator(".pinned")).to_contain_text("sample 2 of 8")
    page.set_viewport_size({"width": 390, "height": 800})
    assert_no_overflow(page)
    pinned = page.locator(".pinned").bounding_box()
    assert pinned is not None
    assert pinned["height"] < 200
    assert_clean(browser[1])


def test_thinking_is_searched_whole_and_copied(
    page: Page, student: Evaluation, browser: Any, live_server: Any
) -> None:
    page.goto(address_of(student, live_server) + f"problems/{_first(student)}/?sample=1")
    page.click("summary:has-text('Thinking')")
    thinking = page.locator(".thinking .parts")
    expect(thinking).not_to_contain_text("needle")  # it stands beyond the first part
    page.fill(".search input", "a NEEDLE. <b>")
    expect(page.locator("mark.hit")).to_have_text("A needle. <b>")
    expect(page.locator(".search output")).to_have_text("1 of 1")
    page.fill(".search input", "step 29")
    expect(page.locator(".search output")).to_have_text("1 of 111")
    page.keyboard.press("Enter")
    expect(page.locator(".search output")).to_have_text("2 of 111")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".search output")).to_have_text("1 of 111")
    page.fill(".search input", "no such words")
    expect(page.locator(".search output")).to_have_text("not found")
    page.fill(".search input", "")
    expect(page.locator("mark.hit")).to_have_count(0)
    page.click(".thinking .more")
    expect(page.locator(".thinking .parts > .text")).to_have_count(2)
    page.click("text=Copy response")
    expect(page.locator("[data-copy]", has_text="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("<think>")
    assert copied.endswith("$.")
    expect(page.locator(".why .katex").first).to_be_visible()
    assert_clean(browser[1])


def test_an_outcome_is_disputed_and_both_scores_are_shown(
    page: Page, student: Evaluation, browser: Any, live_server: Any
) -> None:
    page.goto(address_of(student, live_server) + f"problems/{_first(student)}/?sample=1")
    page.click("summary:has-text('Dispute this outcome')")
    page.fill("#reason", "The reference is a misprint.")
    page.check("input[name=alike]")
    page.click("text=Say that it is correct")
    expect(page.locator(".message").first).to_contain_text("Your dispute of 5 samples is kept")
    page.goto(address_of(student, live_server))
    expect(page.locator("#disputed")).to_contain_text("is being worked out")

    def work() -> None:
        job = desk.claim()
        assert job is not None
        desk.do(job)

    elsewhere(work)
    expect(page.locator("#disputed b").first).to_have_text("45.3")  # 3 × 8 of 64, and 5 more
    expect(page.locator("#disputed")).to_contain_text("37.5")
    assert_clean(browser[1])


def test_maths_that_attacks_does_not_hold_the_page_up(
    page: Page, student: Evaluation, browser: Any, live_server: Any
) -> None:
    page.goto(f"{live_server.url}/evaluations/{student.pk + 1}/")
    page.click("th.name a >> nth=0")
    page.wait_for_selector("h3:has-text('Response')")
    began = page.evaluate("performance.now()")
    page.wait_for_function("document.readyState === 'complete'")
    took = page.evaluate("performance.now()") - began
    assert took < 8000  # bounded at 1.5 s, and a busy machine's last formula
    assert_clean(browser[1])


def test_reports_are_asked_for_and_opened(
    page: Page, student: Evaluation, browser: Any, live_server: Any, monkeypatch: Any, tmp_path: Any
) -> None:
    monkeypatch.setenv("RETORT_SIGNING_KEY", str(tmp_path / "key.pem"))
    page.goto(address_of(student, live_server))
    page.click("text=Download a report")
    for form in ("HTML", "JSON", "CSV", "Parquet"):
        row = page.locator("tr", has=page.locator(f"th:text-is('{form}')"))
        with page.expect_download() as download:
            row.locator("a.button").click()
        assert download.value.path().stat().st_size > 500
    bundle_row = page.locator("tr", has=page.locator("th:text-is('Signed bundle')"))
    bundle_row.locator("button").click()
    expect(bundle_row).to_contain_text("a worker makes it")

    def work() -> None:
        job = desk.claim()
        assert job is not None
        desk.do(job)

    elsewhere(work)
    with page.expect_download() as download:
        bundle_row.locator("a.button").click()
    assert download.value.suggested_filename == f"evaluation-{student.pk}.zip"
    page.set_viewport_size({"width": 390, "height": 800})
    assert_no_overflow(page)
    page.click("text=this installation’s key")
    expect(page.locator("pre")).to_contain_text("BEGIN PUBLIC KEY")
    assert_clean(browser[1])


def _first(found: Evaluation) -> int:
    """The key of the first problem, read before the browser's loop forbids it."""
    return int(found.first_problem)  # type: ignore[attr-defined]
