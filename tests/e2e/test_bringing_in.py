"""A folder dropped on the page, and the pages of keeping house, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from distiller import checkpoints
from tests.distiller.samples import recipe
from tests.e2e.test_walk import take_in, tiny_checkpoint
from tests.e2e.walking import assert_clean, assert_no_overflow, elsewhere, sign_in
from tests.webapp import samples
from webapp.benchmarks.models import PromptSet
from webapp.checkpoints import intake
from webapp.checkpoints.models import Checkpoint

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def drop(page: Page, selector: str, *paths: Path) -> None:
    """Drop files or folders as a desktop does: the page gets entries to walk through."""
    box = page.locator(selector).bounding_box()
    assert box is not None
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + 20}
        session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})
    session.detach()


def test_a_folder_is_dropped_with_all_that_is_in_it(
    browser: Any, live_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "verify_in_child", lambda folder, **_: checkpoints.inspect(folder))
    context, seen = browser
    page = context.new_page()
    sign_in(page, live_server.url + "/")
    model = tiny_checkpoint(tmp_path / "dropped model")
    large = tiny_checkpoint(tmp_path / "large")
    (large / "more").mkdir()
    for number in range(120):  # a browser gives a folder's entries a hundred at a time
        (large / "more" / f"note-{number}.txt").write_text("x")
    page.goto(live_server.url + "/checkpoints/upload/")
    drop(page, "[data-drop]", large)
    page.wait_for_selector("[data-status]:has-text('124 files')")
    assert page.input_value("#id_name") == "large"
    assert "more/note-119.txt" in page.locator("[data-picked]").inner_text()
    page.fill("#id_name", "")
    drop(page, "[data-drop]", model)
    page.wait_for_selector("[data-status]:has-text('4 files')")
    assert page.input_value("#id_name") == "dropped-model"
    (model / ".git" / "objects").mkdir(parents=True)
    for name in (".git/HEAD", ".git/objects/ab", ".gitattributes", "USE POLICY.md"):
        (model / name).write_text("x")
    drop(page, "[data-drop]", model)
    page.wait_for_selector("[data-status]:has-text('left out')")
    said = page.locator("[data-status]").inner_text()
    assert said.startswith("4 files, ")
    left = said.partition("from them: ")[2].split(", ")
    assert sorted(left) == [".git/", ".gitattributes", "USE POLICY.md"]
    page.click("[data-send]")
    page.wait_for_selector("h2:has-text('Being checked')")
    elsewhere(take_in)
    page.wait_for_selector("h2:has-text('Facts')")
    assert "dropped-model" in page.locator("h1").inner_text()
    assert_clean(seen)


@pytest.fixture
def family(rows: Any, user: Any) -> Checkpoint:
    """A student of the walk's base and teacher, with long names around it."""
    base = Checkpoint.objects.get(name="tiny-base")
    teacher = Checkpoint.objects.get(name="tiny-teacher")
    prompts = PromptSet.objects.create(
        name="sums", content_hash="e" * 64, path="prompts/e.jsonl", prompt_count=300
    )
    run = samples.make_run(user, f"run-{'y' * 150}", "distillation",
                           config=recipe("base").model_dump(mode="json"))  # fmt: skip
    config = {"teacher": teacher.pk, "base": base.pk, "prompt_set": prompts.pk}
    samples.make_stage(run, 0, "generate", "Draw", config=config, done=600)
    samples.make_stage(run, 1, "filter", "Filter", result={"funnel": samples.FUNNEL})
    student = Checkpoint.objects.get(name="tiny-student")
    Checkpoint.objects.filter(pk=student.pk).update(
        produced_by=run, parent=base, tags=["small", "t" * 40], licence="apache-2.0"
    )
    return Checkpoint.objects.select_related("produced_by").get(pk=student.pk)


def test_the_pages_around_a_checkpoint_on_a_phone_and_by_keyboard(
    family: Checkpoint, browser: Any, live_server: Any
) -> None:
    context, seen = browser
    page = context.new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    sign_in(page, live_server.url + "/")
    run = family.produced_by
    assert run is not None
    own = family.get_absolute_url()
    for address in (
        own, f"{own}edit/", f"{own}card/", f"/storage/checkpoints/{family.pk}/", "/storage/",
        f"/storage/runs/{run.pk}/", f"/checkpoints/lineage/runs/{run.pk}/",
        "/checkpoints/upload/hub/", "/checkpoints/?tag=small",
    ):  # fmt: skip
        page.goto(live_server.url + address)
        page.wait_for_load_state("networkidle")
        assert page.locator("h1").count() == 1
        assert_no_overflow(page)
    page.goto(live_server.url + own)
    node = page.locator("svg.lineage a", has_text="tiny-teacher")
    node.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('tiny-teacher')")
    page.goto(live_server.url + run.get_absolute_url())
    page.wait_for_selector("#lineage svg.lineage")
    assert_no_overflow(page)
    assert_clean(seen)
