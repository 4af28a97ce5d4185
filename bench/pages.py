"""Every page in a real browser: bytes, first and largest paint, time that scripts block.

    python -m bench.pages [--var FOLDER] [--rounds 3]

Serves an installation that has a finished distillation (by default a demonstration that it makes
first, in minutes) and opens each page in Chromium with an empty cache, on this machine's loopback.
First and largest contentful paint and total blocking time (the parts of tasks beyond 50 ms) are the
browser's own figures (W3C Paint Timing, Largest Contentful Paint, Long Tasks); the medians of the
rounds are kept. Goals: largest paint below 1 s; 300 kB of body without plotly, as sent.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from playwright.sync_api import Page, sync_playwright

from bench._machine import ROOT, write
from bench._serving import served
from scripts.screenshots import CHROMIUM, PAGES, find_places, newest_distillation, sign_in
from scripts.wire import Wire

FIGURES = """() => new Promise((done) => {
  const seen = { "largest-contentful-paint": 0, "longtask": 0 };
  for (const type of Object.keys(seen)) {
    new PerformanceObserver((list) => list.getEntries().forEach((entry) => {
      if (type === "longtask") seen[type] += Math.max(entry.duration - 50, 0);
      else seen[type] = entry.startTime;
    })).observe({ type, buffered: true });
  }
  setTimeout(() => done({
    first: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? null,
    largest: seen["largest-contentful-paint"],
    blocked: seen.longtask,
  }), 300);
})"""


def demonstration(var: Path) -> str:
    """Make a demonstration in ``var``; returns the administrator's password."""
    done = subprocess.run(
        [sys.executable, "manage.py", "demo"], cwd=ROOT, capture_output=True, text=True, check=True,
        env=os.environ | {"RETORT_VAR": str(var), "DEMO_SERVE": "0"},
    )  # fmt: skip
    found = re.search(r"with the password (\S+)", done.stderr)
    assert found is not None
    return found[1]


def look(page: Page, wire: Wire, address: str) -> dict[str, float]:
    """Open a page with an empty cache; bytes as sent, milliseconds."""
    wire.forget()
    page.goto(address, wait_until="networkidle")
    figures: dict[str, float] = page.evaluate(FIGURES)
    plotly = sum(size for address, size in wire.sent.items() if "plotly" in address)
    return figures | {"plotly": plotly, "other": sum(wire.sent.values()) - plotly}


def measure(address: str, password: str, rounds: int) -> dict[str, dict[str, float]]:
    """The median of each figure, per page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        sign_in(page, address, "admin", password)
        places = find_places(page, address, newest_distillation(page, address))
        wire = Wire(page)
        result: dict[str, dict[str, float]] = {}
        for name, path in PAGES.items():
            seen = [look(page, wire, address + path.format(**places)) for _ in range(rounds)]
            result[name] = {
                "first_paint_ms": round(median(each["first"] or 0 for each in seen)),
                "largest_paint_ms": round(median(each["largest"] for each in seen)),
                "blocked_ms": round(median(each["blocked"] for each in seen)),
                "bytes_without_plotly": round(median(each["other"] for each in seen)),
                "plotly_bytes": round(median(each["plotly"] for each in seen)),
            }
            sys.stdout.write(f"{name:14} {result[name]}\n")
        browser.close()
    return result


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--var", type=Path,
        help="an installation's RETORT_VAR; RETORT_PASSWORD: its administrator's password",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="retort-pages-") as folder:
        var = options.var or Path(folder) / "var"
        password = os.environ["RETORT_PASSWORD"] if options.var else demonstration(var)
        with served(var) as (address, _):
            pages = measure(address, password, options.rounds)
    write(
        "pages",
        {
            "rounds": options.rounds,
            "pages": pages,
            "largest_paint_ms": max(each["largest_paint_ms"] for each in pages.values()),
            "bytes_without_plotly": max(each["bytes_without_plotly"] for each in pages.values()),
        },
        packages=("django", "granian", "playwright"),
    )


if __name__ == "__main__":
    main()
