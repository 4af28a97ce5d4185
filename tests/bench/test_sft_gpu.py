"""The measurement for GPUs, as far as it runs without one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from bench import sft_gpu

SMOKE = r"""
import sys
for name in ("pydantic", "typer", "django", "accelerate", "peft", "datasets", "zstandard"):
    sys.modules[name] = None  # importing it is an error
sys.argv = ["sft_gpu", "--smoke", "--steps", "1"]
from bench import sft_gpu
sft_gpu.main()
"""


def test_the_smoke_needs_torch_and_transformers_alone_and_says_what_it_ran_on() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SMOKE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["device"].startswith("cpu")
    assert found["packing_difference"] < sft_gpu.ISOLATION
    assert list(found["runs"]) == ["128", "128 checkpointed", "256", "256 checkpointed"]
    for one in found["runs"].values():
        assert one["tokens_per_second"] > one["supervised_tokens_per_second"] > 0
        assert one["mfu"] is None  # a CPU has no data sheet here
        first, last = one["loss_first_last"]
        assert last < first
    plain, checkpointed = (
        found["runs"][name]["loss_first_last"] for name in ("128", "128 checkpointed")
    )
    assert plain == pytest.approx(checkpointed, rel=1e-2)


def test_what_does_not_fit_is_said_and_the_rest_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = sft_gpu.measure

    def measure(shape: object, device: str, length: int, **options: object) -> object:
        if length == 256 and not options["checkpointing"]:
            raise torch.OutOfMemoryError
        return real(shape, device, length, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(sft_gpu, "measure", measure)
    runs = sft_gpu.run(smoke=True, steps=1)["runs"]
    assert runs["256"] == "does not fit"
    assert runs["256 checkpointed"]["tokens_per_second"] > 0


def test_leaking_attention_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft_gpu.packing, "packed_logits_difference", lambda model, ids: 1e9)
    with pytest.raises(SystemExit, match="sequences are not isolated"):
        sft_gpu.require_isolation(sft_gpu.TINY, "cpu")
