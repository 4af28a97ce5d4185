"""Several processes train what one does, however they are started, and fail as one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distiller.errors import InputError, TrainingError
from tests.distiller.samples import FAST, recipe, run


@pytest.mark.parametrize("lora", [None, {"rank": 4, "alpha": 8}])
def test_two_processes_learn_what_one_learns(
    lora: dict[str, Any] | None, eight: Path, tiny_qwen: Path, tmp_path: Path
) -> None:
    """FSDP over gloo, three micro-batches a step (one process idles in the last round)."""
    settings = {"micro_batch_tokens": 60, "batch_size": 8, "epochs": 12, "lora": lora,
                "held_out_share": 0.25, "learning_rate": 1e-3}  # fmt: skip
    curves: list[list[dict[str, float]]] = []
    for processes in (1, 2):
        curve: list[dict[str, float]] = []
        run(
            eight, tiny_qwen, tmp_path / str(processes), training=settings, processes=processes,
            on_step=lambda step, values, curve=curve: curve.append(dict(values)),
        )  # fmt: skip
        curves.append(curve)
    assert len(curves[0]) == len(curves[1]) == 9
    for one, two in zip(*curves, strict=True):
        for key in ("loss", "grad_norm", "held_out_loss", "learning_rate"):
            assert one.get(key) == pytest.approx(two.get(key), rel=1e-4)
    one, two = (load_file(tmp_path / n / "model.safetensors") for n in ("1", "2"))
    for name, weights in one.items():
        torch.testing.assert_close(weights, two[name], rtol=1e-3, atol=1e-4)


def test_two_processes_go_on_where_they_were_and_one_cannot(
    eight: Path, tiny_qwen: Path, tmp_path: Path
) -> None:
    class StopHereError(Exception):
        pass

    def stop(done: int, total: int, tokens: int) -> None:
        if done == 3:
            raise StopHereError

    settings = {"epochs": 4, "save_seconds": 1e-9}
    with pytest.raises(StopHereError):
        run(eight, tiny_qwen, tmp_path / "a", training=settings, processes=2, on_progress=stop)
    with pytest.raises(TrainingError, match="number of processes differ"):
        run(eight, tiny_qwen, tmp_path / "a", training=settings)
    seen: list[int] = []
    run(
        eight, tiny_qwen, tmp_path / "a", training=settings, processes=2,
        on_progress=lambda done, total, tokens: seen.append(done),
    )  # fmt: skip
    assert seen[0] >= 2
    run(eight, tiny_qwen, tmp_path / "b", training=settings, processes=2)
    one, other = (load_file(tmp_path / n / "model.safetensors") for n in ("a", "b"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_torchruns_processes_train_as_spawned_ones_do(
    eight: Path, tiny_qwen: Path, tmp_path: Path
) -> None:
    file, settings = tmp_path / "recipe.json", {"micro_batch_tokens": 60}
    file.write_text(recipe(tiny_qwen, training=FAST | settings).model_dump_json())
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "distiller", "train", str(file), "--corpus", str(eight),
         "--out", str(tmp_path / "out"), "--no-preflight"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("student: ") == 1
    run(eight, tiny_qwen, tmp_path / "b", training=settings, processes=2)
    one, other = (load_file(tmp_path / n / "model.safetensors") for n in ("out", "b"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("environment", "processes", "sentence"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, None, "'2' of '2' is no place among processes"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, None, "'x' of '2' is no place among processes"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, None, "MASTER_ADDR, MASTER_PORT: not set"),
        ({"RANK": "0", "WORLD_SIZE": "1"}, 2, "processes: a launcher"),
    ],
)
def test_an_environment_that_no_launcher_made_is_refused(
    environment: dict[str, str],
    processes: int | None,
    sentence: str,
    eight: Path,
    tiny_qwen: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=re.escape(sentence)):
        run(eight, tiny_qwen, tmp_path / "out", processes=processes)


def test_an_error_in_a_process_is_the_trainings(
    eight: Path, tiny_qwen: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="leaves nothing to measure"):
        run(eight, tiny_qwen, tmp_path / "out", training={"held_out_share": 0.01}, processes=2)
