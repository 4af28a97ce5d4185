"""What may go wrong while a checkpoint is sent, in a real browser: nothing is lost or mixed up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route

from tests.e2e.test_walk import tiny_checkpoint
from tests.e2e.walking import elsewhere, sign_in
from webapp.checkpoints.models import Upload

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

CHECKED = "h2:has-text('Being checked')"


@pytest.fixture
def page(browser: Any, live_server: Any) -> Page:
    """The upload page, signed in. Faults of the network are this file's: none is looked for."""
    made: Page = browser[0].new_page()
    sign_in(made, live_server.url + "/")
    made.goto(live_server.url + "/checkpoints/upload/")
    return made


def choose_and_send(page: Page, folder: Path) -> None:
    page.wait_for_selector("input[webkitdirectory]")  # the page's script has run
    page.set_input_files("input[type=file]", folder)
    page.click("[data-send]")


def uploads_there() -> list[str]:
    found: list[str] = []
    elsewhere(lambda: found.extend(map(str, Upload.objects.values_list("state", flat=True))))
    return found


def test_handing_over_again_sends_nothing_again(page: Page, tmp_path: Path) -> None:
    """The connection breaks when all files are there, before or after the server has heard."""
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))

    def lose_the_answer(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/finish/", lambda route: route.abort(), times=1)
    choose_and_send(page, tiny_checkpoint(tmp_path / "my-model"))
    page.wait_for_selector(".error:has-text('cannot be reached; what was sent is kept')")
    sent.clear()
    page.route("**/finish/", lose_the_answer, times=1)
    page.click("[data-send]:has-text('Go on')")
    page.wait_for_selector("[data-send]:has-text('Go on'):enabled")
    page.click("[data-send]")
    page.wait_for_selector(CHECKED)
    assert "PATCH" not in sent
    assert uploads_there() == [Upload.State.CHECKING]


def test_a_piece_that_was_damaged_on_its_way_is_sent_again(page: Page, tmp_path: Path) -> None:
    statuses: list[int] = []
    page.on("response", lambda answer: statuses.append(answer.status))

    page.evaluate("""() => {
      const send = XMLHttpRequest.prototype.send;
      XMLHttpRequest.prototype.send = function (body) {
        if (!body) return send.call(this, body);
        XMLHttpRequest.prototype.send = send;
        return send.call(this, new Blob([new Uint8Array(body.size)]));
      };
    }""")
    choose_and_send(page, tiny_checkpoint(tmp_path / "my-model"))
    page.wait_for_selector(CHECKED)
    assert 460 in statuses


def test_whoever_was_signed_out_is_told_so_and_goes_on(page: Page, tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "my-model")

    def sign_out(route: Route) -> None:
        answer = route.fetch()
        page.context.clear_cookies(name="sessionid")
        route.fulfill(response=answer)

    page.route("**/checkpoints/uploads/", sign_out)
    choose_and_send(page, folder)
    page.wait_for_selector(".error:has-text('You are signed out; what was sent is kept')")
    assert "<" not in page.locator("[data-upload]").inner_text()
    page.reload()
    page.fill("#id_username", "ada")
    page.fill("#id_password", "a long enough password")
    page.click("main button")
    page.wait_for_selector("text=Choose the same folder again")
    choose_and_send(page, folder)
    page.wait_for_selector(CHECKED)


def test_the_rest_of_other_files_is_not_put_behind_a_beginning(page: Page, tmp_path: Path) -> None:
    """Two steps of one training have files of the same names and lengths."""
    one, other = (tiny_checkpoint(tmp_path / name) for name in ("step-1000", "step-2000"))
    for folder, changed in ((one, 1_700_000_000), (other, 1_700_000_600)):
        for path in folder.iterdir():
            os.utime(path, (changed, changed))
    page.route("**/files/*/", lambda route: route.abort())
    choose_and_send(page, one)
    page.wait_for_selector("[data-status]:has-text('trying again')")
    page.unroute("**/files/*/")
    page.reload()
    choose_and_send(page, other)
    page.wait_for_selector(".error:has-text('is not the file that was sent')")
    choose_and_send(page, one)
    page.wait_for_selector(CHECKED)
    assert uploads_there() == [Upload.State.CHECKING]
