"""Take screenshots of every page of a running installation that has a finished distillation.

    RETORT_PASSWORD=… python scripts/screenshots.py --url http://127.0.0.1:8000

Needs playwright and Pillow (requirements-dev.txt) and Chromium. Writes light/NAME.png and
dark/NAME.png, 1280 pixels wide, and phone/NAME.png, 390 wide, below docs/screenshots. Exit code 2
with a sentence where something is missing.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Error, Page, sync_playwright

TALLEST = 1600  # pixels of a page that are shown
MOST_BYTES = 200_000
COLOURS = 128  # of a picture's palette: text and flat areas need no more
CHROMIUM = Path("/usr/bin/chromium")

# Folder → width and colour scheme.
LOOKS = {"light": (1280, "light"), "dark": (1280, "dark"), "phone": (390, "light")}

# Name → address; what stands in braces is found from the distillation's page.
PAGES = {
    "leaderboard": "/?benchmark={benchmark}",
    "compare": "/compare/?e={base}&e={student}",
    "evaluation": "/evaluations/{student}/",
    "problem": "{problem}",
    "reports": "/evaluations/{student}/reports/",
    "run": "/runs/{run}/",
    "runs": "/runs/",
    "distil": "/runs/distil/",
    "evaluate": "/runs/evaluate/",
    "import": "/runs/import/",
    "workers": "/runs/workers/",
    "costs": "/costs/",
    "checkpoints": "/checkpoints/",
    "checkpoint": "{checkpoint}",
    "upload": "/checkpoints/upload/",
    "endpoints": "/endpoints/",
    "benchmarks": "/benchmarks/",
    "storage": "/storage/",
    "notifications": "/notifications/",
    "account": "/accounts/",
    "people": "/accounts/people/",
    "audit": "/accounts/audit/",
    "projects": "/projects/",
}


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


def take(page: Page, path: Path) -> None:
    """Photograph the page's top, in a palette. Raises MissingError for one that is too large."""
    page.wait_for_load_state("networkidle")
    page.evaluate("document.fonts.ready")
    page.mouse.move(0, 0)
    size = page.viewport_size
    assert size is not None
    page.set_viewport_size({"width": size["width"], "height": 200})
    tall = int(page.evaluate("document.documentElement.scrollHeight"))
    page.set_viewport_size({"width": size["width"], "height": min(tall, TALLEST)})
    page.wait_for_timeout(500)  # charts follow the window's size
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(COLOURS).save(path, optimize=True)
    if path.stat().st_size > MOST_BYTES:
        raise MissingError(
            f"{path}: {path.stat().st_size} bytes are more than {MOST_BYTES}; take less of it."
        )
    sys.stdout.write(f"{path}: {path.stat().st_size} bytes\n")


def newest_distillation(page: Page, url: str) -> str:
    """The newest finished distillation, or MissingError."""
    page.goto(url + "/runs/?state=finished&kind=distillation")
    run = page.locator("tbody th a")
    if not run.count():
        raise MissingError(f"{url}: no distillation is finished there; run make demo first.")
    return _last_part(run.first.get_attribute("href"))


def find_places(page: Page, url: str, run: str) -> dict[str, str]:
    """What PAGES' addresses stand for. Raises MissingError where the run has no such thing."""
    page.goto(f"{url}/runs/{run}/")
    places = {"run": run}
    for role in ("base", "student"):
        row = page.locator("tbody tr", has=page.locator(".sub", has_text=role))
        if not row.count():
            raise MissingError(f"{page.url}: its {role} was not measured; name another run.")
        places[role] = _last_part(row.first.locator("th a").get_attribute("href"))
    page.goto(f"{url}/evaluations/{places['student']}/")
    crumb = str(page.locator(".crumb a").first.get_attribute("href"))
    places["benchmark"] = crumb.rpartition("=")[2]
    places["checkpoint"] = str(page.locator("h1 a").first.get_attribute("href"))
    places["problem"] = str(page.locator("tbody th a").first.get_attribute("href"))
    return places


def _last_part(href: str | None) -> str:
    return str(href).rstrip("/").rpartition("/")[2]


def take_all(
    browser: Browser, options: argparse.Namespace, password: str, places: dict[str, str]
) -> None:
    """Every page in every look."""
    for look, (width, scheme) in LOOKS.items():
        page = browser.new_page(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        sign_in(page, options.url, options.user, password)
        for name, address in PAGES.items():
            answer = page.goto(options.url + address.format(**places))
            if answer is None or answer.status != 200:
                raise MissingError(f"{page.url}: the page cannot be seen by {options.user}.")
            take(page, options.out / look / f"{name}.png")
        page.close()


def main() -> int:
    """Parse the command line and take the pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--user", default="admin", help="an administrator, who sees every page")
    parser.add_argument("--run", help="default: the newest finished distillation")
    parser.add_argument("--out", type=Path, default=Path("docs/screenshots"))
    options = parser.parse_args()
    options.url = options.url.rstrip("/")
    password = os.environ.get("RETORT_PASSWORD", "")
    try:
        if not password:
            raise MissingError("RETORT_PASSWORD: set it to the user's password.")
        if not CHROMIUM.exists():
            raise MissingError(
                f"{CHROMIUM} is missing; run sh scripts/system_packages.sh chromium."
            )
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM,
                args=["--no-sandbox", "--disable-gpu", "--disable-background-networking",
                      "--hide-scrollbars"],
            )  # fmt: skip
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            sign_in(page, options.url, options.user, password)
            run = options.run or newest_distillation(page, options.url)
            take_all(browser, options, password, find_places(page, options.url, run))
            browser.close()
    except (MissingError, Error) as error:
        sys.stderr.write(f"{str(error).splitlines()[0]}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
