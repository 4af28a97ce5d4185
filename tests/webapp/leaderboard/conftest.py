"""What tests of the leaderboard share: a file store of their own, a student beside its base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.webapp.leaderboard.comparing import PROBLEMS
from tests.webapp.samples import make_benchmark, make_checkpoint, make_evaluation, plain_draw
from webapp.runs.models import Evaluation


@pytest.fixture(autouse=True)
def store_folder(settings: Any, tmp_path: Path) -> Path:
    settings.MEDIA_ROOT = tmp_path / "files"
    return tmp_path


@pytest.fixture
def base(user: Any) -> Evaluation:
    """A base that is right three times in ten."""
    benchmark = make_benchmark(PROBLEMS)
    checkpoint = make_checkpoint(user, "base")
    return make_evaluation(user, checkpoint, benchmark, PROBLEMS, draw=plain_draw(0.3), seed=1)


@pytest.fixture
def student(user: Any, base: Evaluation) -> Evaluation:
    """Its student, right eight times in ten; of twice as many samples."""
    checkpoint = make_checkpoint(user, "student", parent=base.checkpoint)
    return make_evaluation(
        user, checkpoint, base.benchmark, PROBLEMS, draw=plain_draw(0.8), seed=2, samples=8
    )
