"""Launching in a real browser: from a preset, from a paste that had to be mended, from a run."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.e2e.conftest import PROBLEMS
from tests.e2e.walking import assert_clean, assert_no_overflow, elsewhere, sign_in
from tests.webapp import samples
from webapp.benchmarks.services import install_prompt_set
from webapp.runs import files
from webapp.runs.models import Run, State

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
]


@pytest.fixture
def prompts(rows: Any) -> None:
    """Prompts for the teacher."""
    install_prompt_set("sums", PROBLEMS)


def distil_page(browser: Any, live_server: Any) -> tuple[Page, Any]:
    context, seen = browser
    page = context.new_page()
    sign_in(page, live_server.url + "/")
    page.goto(live_server.url + "/runs/distil/")
    return page, seen


def choose_names(page: Page, student: str) -> None:
    page.select_option("#id_teacher", label="tiny-teacher")
    page.select_option("#id_base", label="tiny-base")
    page.select_option("#id_prompt_set", label="sums")
    page.fill("#id_student", student)


def launched(name: str) -> Any:
    """The recipe of the run of that name."""
    found: list[Any] = []
    elsewhere(lambda: found.append(Run.objects.get(name=name).config))
    return found[0]


def test_a_preset_with_one_change_is_launched(
    prompts: None, browser: Any, live_server: Any
) -> None:
    page, seen = distil_page(browser, live_server)
    page.fill("#id_student", "from-preset")
    page.click("button:has-text('quick')")
    page.wait_for_selector(".preset.chosen")
    assert page.input_value("#id_student") == "from-preset", "a preset forgot what was typed"
    assert page.locator("#id_lora_rank").is_hidden()
    page.click("#advanced-3 > summary")
    assert page.locator("#id_lora_rank").is_visible(), "quick trains adapters"
    page.select_option("#id_method", "full")
    assert page.locator("#id_lora_rank").is_hidden(), "fields of another method are shown"
    assert page.locator("#id_price_input").is_hidden(), "a teacher that is here has no price"
    choose_names(page, "from-preset")
    page.wait_for_selector("#estimate >> text=prompts × 2 samples")
    page.click("#advanced-1 > summary")
    assert page.locator("#id_engine").is_visible()
    page.set_viewport_size({"width": 390, "height": 800})
    assert_no_overflow(page)
    page.click("button.primary:has-text('Launch')")
    page.wait_for_selector("h1:has-text('from-preset')")
    recipe = launched("from-preset")
    assert recipe["generation"]["stop_after"] == 1
    assert recipe["training"]["lora"] is None
    assert_clean(seen)


def test_a_paste_with_a_mistake_is_mended_and_launched(
    prompts: None, browser: Any, live_server: Any
) -> None:
    page, seen = distil_page(browser, live_server)
    page.fill("#id_student", "still-here")
    text = (
        "teacher: tiny-teacher\nbase: tiny-base\nstudent: pasted\nprompts: {set: sums}\n"
        "training:\n  epochs: -3\n"
    )
    page.fill("#id_yaml", text)
    page.click("button:has-text('Fill the form')")
    page.wait_for_selector("text=line 6, training.epochs")
    assert page.input_value("#id_yaml") == text
    assert page.input_value("#id_student") == "still-here", "a bad paste changed the form"
    page.fill("#id_yaml", text.replace("-3", "3.5"))
    page.click("button:has-text('Fill the form')")
    page.wait_for_selector("text=The form holds this recipe now")
    assert page.input_value("#id_epochs") == "3.5"
    assert page.input_value("#id_student") == "pasted"
    page.click("button:has-text('Show as YAML')")
    page.wait_for_selector("text=python -m distiller generate")
    assert "epochs: 3.5" in page.input_value("#id_yaml")
    page.click("button.primary:has-text('Launch')")
    page.wait_for_selector("h1:has-text('pasted')")
    assert launched("pasted")["training"]["epochs"] == 3.5
    # The run's page leads back to a form that holds it, under a name that is free.
    page.click("a:has-text('Clone')")
    page.wait_for_selector("text=This is the recipe of pasted")
    assert page.input_value("#id_epochs") == "3.5"
    page.fill("#id_student", "cloned")
    page.click("button.primary:has-text('Launch')")
    page.wait_for_selector("h1:has-text('cloned')")
    first, second = launched("pasted"), launched("cloned")
    assert {key for key in first if first[key] != second[key]} == {"name", "student"}
    assert_clean(seen)


def test_a_fault_is_shown_where_it_is(prompts: None, browser: Any, live_server: Any) -> None:
    page, seen = distil_page(browser, live_server)
    choose_names(page, "student-2")
    page.click("#advanced-3 > summary")
    page.fill("#id_learning_rate", "7")
    page.click("#advanced-3 > summary")
    page.click("button.primary:has-text('Launch')")
    page.wait_for_selector("text=nothing was launched")
    assert page.locator("#id_learning_rate_error").is_visible(), "the step with the fault is shut"
    assert page.evaluate("document.activeElement.id") == "id_learning_rate"
    assert page.input_value("#id_student") == "student-2"
    # The page of a refusal has the status 400, which the console writes down.
    seen["errors"] = [each for each in seen["errors"] if "status of 400" not in each]
    assert_clean(seen)


def test_a_check_answers_on_the_page(prompts: None, browser: Any, live_server: Any) -> None:
    page, seen = distil_page(browser, live_server)
    choose_names(page, "checked")
    page.click("button:has-text('Check the recipe')")
    page.wait_for_selector("#checked >> text=A worker is checking")
    elsewhere(_finish_check)
    page.wait_for_selector("#checked >> text=it is too short; stretch it")
    page.click("#checked summary:has-text('first example')")
    assert page.locator("#checked pre mark.learnt").is_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(2500)  # two polls would have come
    assert asked == []
    assert_clean(seen)


def _finish_check() -> None:
    """As its worker would leave it."""
    run = Run.objects.get(name="Check of checked")
    stage = run.stages.get()
    folder = files.stage_folder(stage)
    folder.mkdir(parents=True)
    (folder / "preflight.json").write_text(json.dumps(samples.PREFLIGHT))
    run.stages.update(state=State.FAILED)
    Run.objects.filter(pk=run.pk).update(state=State.FAILED)


def test_a_matrix_of_evaluations_says_what_it_will_measure(browser: Any, live_server: Any) -> None:
    context, seen = browser
    page = context.new_page()
    sign_in(page, live_server.url + "/")
    page.goto(live_server.url + "/runs/evaluate/")
    for name in ("tiny-base", "tiny-student", "Arithmetic"):
        page.get_by_label(name, exact=True).check()
    page.fill("#id_samples", "64")
    page.locator("#id_samples").blur()
    page.wait_for_selector("#plan >> text=pass@1[avg-of-64]")
    assert page.locator("#plan >> text=cons@64").is_visible()
    assert page.locator("#plan >> text=1,024").is_visible()  # 2 × 8 problems × 64
    page.set_viewport_size({"width": 390, "height": 800})
    assert_no_overflow(page)
    page.click("button.primary:has-text('Launch')")
    page.wait_for_selector("h1:has-text('tiny-base, tiny-student on Arithmetic')")
    assert_clean(seen)
