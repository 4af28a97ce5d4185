"""The chain as a person goes it: upload, distil, watch, compare, dispute, download."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Page
from pyarrow import parquet

PAGE_SECONDS = 30.0
RUN_SECONDS = 900.0
REPORTS = {
    "html": b"<!doctype html>",
    "json": b"{",
    "csv": b"",
    "pdf": b"%PDF-",
    "parquet": b"PAR1",
    "zip": b"PK",
}
NAMES = {"zip": "Signed bundle", "parquet": "Parquet"}

BREAK_LARGE_PIECES = """() => {
  const send = XMLHttpRequest.prototype.send;
  XMLHttpRequest.prototype.send = function (body) {
    if (!body || body.size < 10000) return send.call(this, body);
    document.body.dataset.broken = "yes";
    setTimeout(() => this.onerror(new ProgressEvent("error")));
  };
}"""


def upload_with_an_interruption(page: Page, served: str, folder: Path) -> None:
    page.goto(served + "/checkpoints/upload/")
    page.set_input_files("input[type=file]", folder)
    # No weights get through; then the page is closed in mid-upload and opened again.
    page.evaluate(BREAK_LARGE_PIECES)
    page.click("[data-send]")
    page.wait_for_selector("body[data-broken]")
    page.click("[data-pause]")
    page.reload()
    page.wait_for_selector("text=Choose the same folder again")
    page.set_input_files("input[type=file]", folder)
    page.click("[data-send]")
    page.wait_for_selector("h2:has-text('Lineage')")
    assert page.locator("h1").inner_text().strip().startswith("uploaded-base")


def launch(page: Page, served: str) -> None:
    page.goto(served + "/runs/distil/")
    page.click("button[value='preset:demo']")
    page.wait_for_selector("button[value='preset:demo'][aria-pressed=true]")
    page.select_option("[name=teacher]", label=label_of(page, "teacher", "arithmetic-teacher"))
    page.select_option("[name=prompt_set]", index=1)
    page.select_option("[name=base]", label=label_of(page, "base", "uploaded-base"))
    page.fill("[name=student]", "browser-student")
    # Enough to learn something from within a minute.
    page.fill("[name=epochs]", "3")
    page.check("[name=benchmarks]")
    page.click("button.primary[value=launch]")
    page.wait_for_selector(".runbar")


def label_of(page: Page, field: str, name: str) -> str:
    """The whole label of the choice that begins with ``name``."""
    labels = page.locator(f"[name={field}] option").all_inner_texts()
    return next(label for label in labels if label.strip().startswith(name))


def watch(page: Page) -> None:
    seconds = RUN_SECONDS * 1000
    page.wait_for_selector(".runbar .state-finished, .runbar .state-failed", timeout=seconds)
    assert page.locator(".runbar .state-finished").count() == 1, page.locator("#live").inner_text()
    assert page.locator(".chart svg.main-svg").first.is_visible()
    page.locator("table a:has-text('browser-student')").first.click()


def compare(page: Page) -> None:
    page.wait_for_selector("text=pass@1[avg-of-16]")
    address = page.url
    page.click("a:has-text('Compare with uploaded-base')")
    page.wait_for_selector("h1:has-text('2 evaluations compared')")
    text = page.locator("main").inner_text()
    assert "more than chance" in text, text
    page.goto(address)


def dispute(page: Page) -> None:
    address = page.url
    page.locator("#problems tbody th a").first.click()
    page.click("summary:has-text('Dispute this outcome')")
    page.fill("#reason", "A person has looked at it.")
    page.click("#dispute button")
    page.wait_for_selector("strong:has-text('Disputed.')")
    page.goto(address)
    # A worker scores anew with the dispute; both scores are then shown.
    page.wait_for_selector("text=with disputes")


def download_reports(page: Page, folder: Path) -> None:
    page.click("a:has-text('Download a report')")
    for form, beginning in REPORTS.items():
        row = page.locator("tr", has=page.locator(f"th:text-is('{NAMES.get(form, form.upper())}')"))
        if not row.locator("a[download]").count():
            row.locator("button").click()
        row.locator("a[download]").wait_for(timeout=PAGE_SECONDS * 2000)
        with page.expect_download() as download:
            row.locator("a[download]").click()
        path = folder / f"report.{form}"
        download.value.save_as(path)
        assert path.read_bytes().lower().startswith(beginning.lower()), form
    json.loads((folder / "report.json").read_bytes())
    assert parquet.read_table(folder / "report.parquet").num_rows
    page.goto((folder / "report.html").as_uri())
    page.wait_for_selector("svg")
