"""What the walks share: signing in, looking for faults, database work beside the browser."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.db import connection
from playwright.sync_api import Page


def sign_in(
    page: Page, address: str, name: str = "ada", password: str = "a long enough password"
) -> None:
    page.goto(address)
    page.fill("#id_username", name)
    page.fill("#id_password", password)
    page.click("main button")
    page.wait_for_selector("h1:has-text('Leaderboard')")


def assert_no_overflow(page: Page) -> None:
    wide = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert wide <= 0, f"{page.url} is {wide} px wider than the window"


def assert_clean(seen: dict[str, list[str]]) -> None:
    assert seen["errors"] == []
    assert seen["outside"] == []


def elsewhere(work: Callable[[], Any]) -> None:
    """Do database work in a thread of its own: this one runs playwright's loop."""

    def do() -> None:
        try:
            work()
        finally:
            connection.close()

    thread = threading.Thread(target=do)
    thread.start()
    thread.join()
