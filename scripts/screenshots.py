"""Take the README's screenshots of a running installation that has a finished distillation.

    RETORT_PASSWORD=… python scripts/screenshots.py --url http://127.0.0.1:8000

Needs playwright (requirements-dev.txt) and Chromium. Writes leaderboard.png, run.png and
evaluation.png, light and 1280 pixels wide. Exit code 2 with a sentence where something is missing.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from playwright.sync_api import Error, Page, sync_playwright

WIDTH = 1280
MOST_BYTES = 300_000
CHROMIUM = Path("/usr/bin/chromium")


class MissingError(Exception):
    """What the installation lacks, as a sentence."""


def sign_in(page: Page, url: str, user: str, password: str) -> None:
    """Sign in, or raise MissingError."""
    page.goto(url + "/accounts/login/")
    page.fill("#id_username", user)
    page.fill("#id_password", password)
    page.click("main button")
    page.wait_for_load_state("networkidle")
    if "/login/" in page.url:
        raise MissingError(f"--user, RETORT_PASSWORD: {url} does not take them; check both.")


def take(page: Page, path: Path, height: int) -> None:
    """Photograph the page's top ``height`` pixels, or less where it ends before."""
    page.wait_for_load_state("networkidle")
    page.evaluate("document.fonts.ready")
    page.mouse.move(0, 0)
    page.set_viewport_size({"width": WIDTH, "height": 200})
    tall = int(page.evaluate("document.documentElement.scrollHeight"))
    page.set_viewport_size({"width": WIDTH, "height": min(tall, height)})
    page.wait_for_timeout(500)  # charts follow the window's size
    page.screenshot(path=path)
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise MissingError(
            f"{path}: {size} bytes are more than {MOST_BYTES}; take less of the page."
        )
    sys.stdout.write(f"{path}: {size} bytes\n")


def newest_distillation(page: Page, url: str) -> str:
    """The address of the newest finished distillation, or MissingError."""
    page.goto(url + "/runs/?state=finished")
    run = page.locator("tbody tr", has=page.locator(".sub", has_text="distillation"))
    if not run.count():
        raise MissingError(f"{url}: no distillation is finished there; run make demo first.")
    return str(run.first.locator("th a").get_attribute("href"))


def take_all(page: Page, url: str, run: str, benchmark: str, folder: Path) -> None:
    """A distillation's page, its student's evaluation, and the leaderboard of a benchmark."""
    page.goto(url + run)
    if not page.locator("#loss-chart").count():
        raise MissingError(f"--run: {url + run} is no distillation that has trained; name one.")
    page.wait_for_selector(".chart svg.main-svg")
    student = page.locator("tbody tr", has=page.locator(".sub", has_text="student"))
    if not student.count():
        raise MissingError(
            f"{page.url}: its student was not measured; name a benchmark in the recipe."
        )
    evaluation = url + str(student.first.locator("th a").get_attribute("href"))
    take(page, folder / "run.png", 1300)
    page.goto(evaluation)
    take(page, folder / "evaluation.png", 1130)
    page.goto(f"{url}/?benchmark={benchmark}")
    take(page, folder / "leaderboard.png", 1300)


def main() -> int:
    """Parse the command line and take the pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--user", default="admin")
    parser.add_argument("--run", type=int, help="default: the newest finished distillation")
    parser.add_argument("--benchmark", default="", help="of the leaderboard; default: its first")
    parser.add_argument("--out", type=Path, default=Path("docs/screenshots"))
    options = parser.parse_args()
    password = os.environ.get("RETORT_PASSWORD", "")
    try:
        if not password:
            raise MissingError("RETORT_PASSWORD: set it to the user's password.")
        if not CHROMIUM.exists():
            raise MissingError(
                f"{CHROMIUM} is missing; run sh scripts/system_packages.sh chromium."
            )
        options.out.mkdir(parents=True, exist_ok=True)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM,
                args=["--no-sandbox", "--disable-gpu", "--disable-background-networking",
                      "--hide-scrollbars"],
            )  # fmt: skip
            page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
            url = options.url.rstrip("/")
            sign_in(page, url, options.user, password)
            run = f"/runs/{options.run}/" if options.run else newest_distillation(page, url)
            take_all(page, url, run, options.benchmark, options.out)
            browser.close()
    except (MissingError, Error) as error:
        sys.stderr.write(f"{str(error).splitlines()[0]}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
