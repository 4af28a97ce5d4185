"""A walk through the house with a real browser: what a person does, on a live server.

All rows are made before the browser starts: playwright's loop runs in the test's thread, and
Django refuses database work there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from distiller import checkpoints
from tests.e2e.conftest import PROBLEMS
from tests.e2e.walking import assert_clean, assert_no_overflow, elsewhere, sign_in
from tests.webapp import models, samples
from webapp.checkpoints import intake
from webapp.projects.models import Role
from webapp.runs.models import Run, State

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
]


def tiny_checkpoint(folder: Path) -> Path:
    """A folder that transformers can load: a whole model of 816 parameters."""
    return models.write(folder, models.model_files())


def test_from_signing_in_to_a_report(browser: Any, live_server: Any) -> None:
    context, seen = browser
    page = context.new_page()
    sign_in(page, live_server.url + "/")
    page.click("nav[aria-label=Benchmarks] >> text=Arithmetic")
    row = page.locator("tr", has_text="tiny-teacher")
    assert "measured here" in row.inner_text()
    row.locator("a").first.click()
    page.wait_for_selector(".chart svg.main-svg")
    assert page.locator("text=pass@1[avg-of-8]").first.is_visible()
    assert page.locator("svg.strip").count() == len(PROBLEMS)
    how = page.locator("text=First prompt, as the model saw it")
    assert not how.is_visible()
    page.click("a:text-is('how')")
    how.wait_for(state="visible")  # the link opens the folded part that it leads to
    evaluation = page.url.split("#")[0]
    page.click("text=Download a report")
    with page.expect_download() as download:
        page.locator("tr", has_text="HTML").locator("a.button").click()
    report = Path(download.value.path()).read_text(encoding="utf-8")
    assert "pass@1[avg-of-8]" in report
    page.goto(evaluation)
    page.click("th >> text=sum-003")
    page.wait_for_selector(".katex")
    thoughts = page.locator("details.fold .text").first
    assert not thoughts.is_visible()
    page.click("summary:has-text('Thinking')")
    assert thoughts.is_visible()
    page.click(".pinned a[rel=next]")
    page.wait_for_selector("article:has-text('Sample 1')")
    assert_clean(seen)


@pytest.fixture
def second(rows: Any, user: Any) -> Any:
    """Another project that the person works in."""
    return samples.make_project("Second", {user: Role.OPERATOR})


def test_uploading_a_checkpoint_and_being_refused(
    second: Any, browser: Any, live_server: Any, tmp_path: Path
) -> None:
    context, seen = browser
    page = context.new_page()
    sign_in(page, live_server.url + "/")
    good = tiny_checkpoint(tmp_path / "my-model")
    bad = tiny_checkpoint(tmp_path / "bad-model")
    (bad / "pytorch_model.bin").write_bytes(b"\x80\x04K\x01.")
    page.goto(live_server.url + "/checkpoints/upload/")
    page.set_input_files("input[type=file]", bad)
    assert page.input_value("#id_name") == "bad-model"
    with page.expect_response(lambda answer: answer.request.method == "POST") as refusal:
        page.click("[data-send]")
    assert refusal.value.status == 400
    page.wait_for_selector(".error:has-text('pytorch_model.bin')")
    # The browser itself logs the refused request; that is the one error that belongs here.
    assert len(seen["errors"]) == 1
    assert "400" in seen["errors"].pop()
    page.fill("#id_name", "my-model")
    page.set_input_files("input[type=file]", good)
    page.select_option("#id_project", label="Second")
    page.click("[data-send]")
    page.wait_for_selector("h2:has-text('Being checked')")  # in quarantine
    elsewhere(take_in)
    page.wait_for_selector("h1:has-text('my-model')")
    page.wait_for_selector("h2:has-text('Facts')")
    facts = page.locator("dl.facts").first.inner_text()
    assert "Qwen2ForCausalLM" in facts
    assert "816" in facts
    assert page.locator("dt:has-text('Project') + dd").inner_text() == "Second"
    assert_clean(seen)


def test_an_upload_survives_a_broken_connection_a_pause_and_a_reload(
    browser: Any, live_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "verify_in_child", lambda folder, **_: checkpoints.inspect(folder))
    context, seen = browser
    page = context.new_page()
    sign_in(page, live_server.url + "/")
    model = tiny_checkpoint(tmp_path / "large-model")
    (model / "model.safetensors").write_bytes(models.weights({"w": (10, 1 << 20)}))
    big = (model / "model.safetensors").stat().st_size
    sent: list[int] = []

    def note(request: Any) -> None:
        if request.method == "PATCH" and int(request.headers.get("content-length", big)) > 1000:
            sent.append(int(request.headers["upload-offset"]))

    page.on("request", note)
    page.goto(live_server.url + "/checkpoints/upload/")
    page.set_input_files("input[type=file]", model)
    # After the first large piece the connection breaks, and again at every try.
    page.evaluate("""() => {
      const send = XMLHttpRequest.prototype.send;
      let pieces = 0;
      XMLHttpRequest.prototype.send = function (body) {
        if (!body || body.size < 100000) return send.call(this, body);
        pieces += 1;
        if (pieces === 1) return send.call(this, body);
        document.body.dataset.broken = pieces - 1;
        setTimeout(() => this.onerror(new ProgressEvent("error")));
      };
    }""")
    page.click("[data-send]")
    page.wait_for_selector("body[data-broken='2']")
    page.click("[data-pause]")
    page.wait_for_selector("[data-status]:has-text('paused')")
    page.reload()
    page.wait_for_selector("text=Choose the same folder again")
    page.set_input_files("input[type=file]", model)
    before = len(sent)
    page.click("[data-send]")
    page.wait_for_selector("h2:has-text('Being checked')")
    elsewhere(take_in)
    page.wait_for_selector("h2:has-text('Facts')")
    # The first piece went once: after the reload the rest only.
    assert sent[0] == 0
    assert min(sent[before:]) >= 1 << 24
    assert "large-model" in page.locator("h1").inner_text()
    assert_clean(seen)


def test_hostile_text_does_nothing_and_nothing_is_wider_than_a_phone(
    browser: Any, live_server: Any
) -> None:
    context, seen = browser
    page = context.new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    sign_in(page, live_server.url + "/")
    page.goto(live_server.url + "/?benchmark=arithmetic&published=no")
    page.click("tr:has-text('hostile') a")
    evaluation = page.url
    page.click("th >> text=sum-003")
    page.click("summary:has-text('Thinking')")
    problem = page.url
    words = page.locator(".katex-html .text", has_text="several").bounding_box()
    assert words is not None
    assert words["height"] < 40, "the words of a formula do not stand on one line"
    addresses = ["/", "/runs/", "/checkpoints/", "/checkpoints/upload/", "/benchmarks/",
                 "/runs/distil/", "/runs/evaluate/"]  # fmt: skip
    for address in [evaluation, problem, *(live_server.url + path for path in addresses)]:
        page.goto(address)
        page.wait_for_load_state("networkidle")
        assert_no_overflow(page)
        assert page.evaluate("window.stolen") is None
        assert page.locator("a[href^='javascript:']").count() == 0
    for link in ("/runs/", "/checkpoints/", "/benchmarks/"):
        page.goto(live_server.url + link)
        page.locator("tbody th a").first.click()
        page.wait_for_load_state("networkidle")
        assert_no_overflow(page)
    assert_clean(seen)


def test_the_theme_can_be_switched_and_stays(browser: Any, live_server: Any) -> None:
    context, seen = browser
    page = context.new_page()
    sign_in(page, live_server.url + "/")

    def paper() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = paper()
    page.click("[data-theme-toggle]")
    dark = paper()
    assert dark != light
    page.reload()
    assert paper() == dark
    assert_clean(seen)


def test_a_run_page_follows_its_run_and_then_rests(
    browser: Any, live_server: Any, running: Any
) -> None:
    context, seen = browser
    page = context.new_page()
    sign_in(page, live_server.url + "/")
    page.goto(live_server.url + running.get_absolute_url())
    page.click("summary:has-text('Last lines')")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    elsewhere(lambda: running.stages.update(done=77, tokens_per_second=1234))
    page.wait_for_selector("text=77 of 100 completions")
    assert page.locator("text=1.23k tokens/s").is_visible()
    assert page.locator("pre.log").first.is_visible(), "a fold closed while the page was polled"
    now = timezone.now()
    elsewhere(lambda: running.stages.update(state=State.FINISHED, finished_at=now))
    elsewhere(
        lambda: Run.objects.filter(pk=running.pk).update(state=State.FINISHED, finished_at=now)
    )
    # What came of it is drawn anew, once: the page was opened before there was anything.
    with page.expect_response(lambda answer: "/lineage/" in answer.url):
        page.wait_for_selector(".runbar .state-finished")
    page.wait_for_load_state("networkidle")
    asked.clear()
    page.wait_for_timeout(4500)  # two polls would have come
    assert asked == []
    assert_clean(seen)


def test_the_traces_that_somebody_reads_stay_while_the_page_is_polled(
    training: Run, browser: Any, live_server: Any
) -> None:
    context, seen = browser
    page = context.new_page()
    sign_in(page, live_server.url + "/")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(live_server.url + training.get_absolute_url())
    page.wait_for_selector("#examples article")
    page.click("#examples >> text=dropped")
    page.wait_for_selector("#examples .tag:has-text('dropped: answer')")
    page.click("#examples summary >> nth=0")
    train = training.stages.filter(kind="train")
    for step in (2, 3):
        elsewhere(lambda step=step: train.update(done=step))  # type: ignore[misc]
        page.wait_for_selector(f"text={step} of 9 steps")
    assert page.locator("section#examples").count() == 1
    assert page.locator("#examples [aria-current]").inner_text() == "dropped"
    assert page.locator("#examples details").first.get_attribute("open") is not None
    assert page.locator(".chart svg.main-svg").first.is_visible()
    assert len([address for address in asked if "/examples/" in address]) == 2
    assert_clean(seen)


def take_in() -> None:
    """A worker's turn at the upload that waits."""
    job = intake.claim("host/1")
    assert job is not None
    intake.carry_out(job)
