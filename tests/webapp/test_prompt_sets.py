"""A prompt set is never a benchmark."""

from __future__ import annotations

import pytest

from evaluator.benchmarks.arithmetic import generate
from webapp.benchmarks.models import Benchmark
from webapp.benchmarks.services import install_benchmark
from webapp.core.errors import UserError


@pytest.mark.django_db
def test_a_prompt_set_is_not_installed_as_a_benchmark() -> None:
    with pytest.raises(UserError, match="is a prompt set; run: import_prompts"):
        install_benchmark("aime_1983_2023", generate(3, seed=0), "a file")
    assert not Benchmark.objects.exists()
