"""A browser that watches for faults, and rows for it to look at.

All rows are made before the browser starts: playwright's loop runs in the test's thread, and
Django refuses database work there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright

from tests.webapp import samples
from webapp.runs import files
from webapp.runs.models import Run, State, TrainingPoint

CHROMIUM = Path("/usr/bin/chromium")
PROBLEMS = samples.arithmetic(8)


@pytest.fixture
def rows(settings: Any, tmp_path: Path, user: Any) -> Any:
    """A teacher, a base and a student measured on one benchmark, and a hostile model."""
    settings.MEDIA_ROOT = tmp_path / "files"
    benchmark = samples.make_benchmark(PROBLEMS)
    found = None
    for name, ability in (("base", 0.2), ("teacher", 0.95), ("student", 0.7)):
        checkpoint = samples.make_checkpoint(user, f"tiny-{name}")
        found = samples.make_evaluation(
            user, checkpoint, benchmark, PROBLEMS, samples=8, draw=samples.plain_draw(ability)
        )
    hostile = samples.make_checkpoint(user, f"hostile-{'x' * 150}", notes=samples.HOSTILE)
    samples.make_evaluation(user, hostile, benchmark, PROBLEMS, samples=2, draw=_hostile)
    return found


@pytest.fixture
def running(rows: Any, user: Any) -> Run:
    """A run that is under way, as its worker would leave it."""
    run = samples.make_run(user, "under way", Run.Kind.EVALUATION, State.RUNNING)
    samples.make_stage(
        run, 0, "evaluate", "Draw", state=State.RUNNING, done=5, total=100, unit="completions",
        log_tail="loading",
    )  # fmt: skip
    return run


# What KaTeX draws with style attributes, and with elements of the class "text".
FORMULAE = r"""
\[ t = \text{several words on one line} + \begin{cases} 1 & x > 0 \\ 2 & x < 0 \\ 3 & x = 0 \\ 4
\end{cases} \]

\[ \boxed{\fcolorbox{red}{white}{7}} \]
"""


@pytest.fixture
def training(rows: Any, user: Any) -> Run:
    """A distillation whose traces are filtered and whose student is being trained."""
    config = {"thinking": {"kind": "tags"}}
    run = samples.make_run(user, "training", Run.Kind.DISTILLATION, State.RUNNING, config=config)
    corpus = files.store_path("runs/9/1/lease/corpus")
    corpus.mkdir(parents=True)
    samples.write_corpus(corpus.parent)
    samples.make_stage(
        run, 0, "filter", "Filter traces",
        result={"corpus": "runs/9/1/lease/corpus", "funnel": samples.FUNNEL},
    )  # fmt: skip
    train = samples.make_stage(
        run, 1, "train", "Train", state=State.RUNNING, done=1, total=9, unit="steps"
    )
    TrainingPoint.objects.create(stage=train, step=1, values={"loss": 1.5})
    return run


def _hostile(rng: Any, problem: Any, sample: int) -> Any:
    text = f"<think>\n{samples.HOSTILE}\n</think>\n$\\href{{javascript:stolen=1}}{{x}}$ " * 2
    return (
        text + samples.HOSTILE + FORMULAE,
        samples.Outcome.WRONG,
        samples.HOSTILE,
        samples.HOSTILE,
    )


@pytest.fixture
def browser(
    rows: Any, running: Run, live_server: Any, tmp_path: Path
) -> Iterator[tuple[BrowserContext, Any]]:
    """A browser that writes down console errors and requests that leave this machine."""
    if not CHROMIUM.exists():
        pytest.fail(f"{CHROMIUM} is missing: run sh scripts/system_packages.sh chromium")
    seen: dict[str, list[str]] = {"errors": [], "outside": []}
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile",
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
            viewport={"width": 1280, "height": 900},
            accept_downloads=True,
        )
        context.set_default_timeout(15_000)

        def watch(page: Page) -> None:
            page.on("pageerror", lambda error: seen["errors"].append(str(error)))
            page.on(
                "console",
                lambda message: (
                    seen["errors"].append(f"{page.url}: {message.text}")
                    if message.type == "error"
                    else None
                ),
            )

        def leaving(request: Any) -> None:
            if not request.url.startswith((live_server.url, "data:", "blob:")):
                seen["outside"].append(request.url)

        context.on("page", watch)
        context.on("request", leaving)
        yield context, seen
        context.close()
