"""Merging two checkpoints: against torch, and what is refused."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from distiller import headers, merge
from distiller.checkpoints import content_hash
from distiller.errors import CheckpointError, InputError
from distiller.verifying import verify

WEIGHTS = "model.safetensors"


def another(source: Path, folder: Path, *, seed: int, dtype: torch.dtype | None = None) -> Path:
    """The checkpoint with other weights."""
    shutil.copytree(source, folder)
    generator = torch.Generator().manual_seed(seed)
    tensors = load_file(folder / WEIGHTS)
    fresh = {
        name: torch.randn(tensor.shape, generator=generator).to(dtype or tensor.dtype)
        for name, tensor in tensors.items()
    }
    save_file(fresh, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("weight", [0.5, 0.3, 1.0])
def test_the_mean_is_torchs(
    dtype: torch.dtype, weight: float, tiny_qwen: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(merge, "CHUNK_ELEMENTS", 100)  # shapes do not come out even
    first = another(tiny_qwen, tmp_path / "a", seed=1, dtype=dtype)
    second = another(tiny_qwen, tmp_path / "b", seed=2, dtype=dtype)
    made = merge.merge(first, second, tmp_path / "out", weight=weight)
    assert verify(tmp_path / "out") == made
    one, other = load_file(first / WEIGHTS), load_file(second / WEIGHTS)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for name, tensor in load_file(tmp_path / "out" / WEIGHTS).items():
        share = torch.tensor(weight, dtype=wide)
        rest = torch.tensor(1 - weight, dtype=wide)
        wanted = share * one[name].to(wide) + rest * other[name].to(wide)
        assert torch.equal(tensor, wanted.to(dtype)), name
    note = json.loads((tmp_path / "out" / "merge.json").read_text())
    assert [parent["content_hash"] for parent in note["parents"]] == [
        content_hash(first), content_hash(second)
    ]  # fmt: skip
    assert [parent["weight"] for parent in note["parents"]] == [weight, 1 - weight]


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50))
def test_rounding_to_bfloat16_is_torchs(numbers: list[float]) -> None:
    mine = merge._narrowed(np.array(numbers, dtype="<f4"), "BF16")
    theirs = torch.tensor(numbers, dtype=torch.float32).to(torch.bfloat16).view(torch.int16)
    assert mine.astype("<u2").tolist() == [value & 0xFFFF for value in theirs.tolist()]


def _config(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rms_norm_eps": 1e-3}))


def _tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "truncation": {"max_length": 3}}))


def _tensors(edit: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        edit(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return change


NORM = "model.norm.weight"
UNLIKE = {
    "config": (_config, "rms_norm_eps is"),
    "tokenizer": (_tokenizer, r"tokenizer\.json: differs"),
    "names": (_tensors(lambda t: t.pop(NORM)), "only .* holds this tensor"),
    "shape": (_tensors(lambda t: t.update({NORM: t[NORM][:3].clone()})), "has the shape"),
    "kind": (_tensors(lambda t: t.update({NORM: t[NORM].to(torch.int8)})), "no floating-point"),
    "finite": (_tensors(lambda t: t[NORM].fill_(torch.inf)), "not finite"),
    "torn": (lambda f: (f / WEIGHTS).write_bytes(b"x") and None, "torn"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNLIKE)
def test_what_does_not_belong_together_is_refused(
    case: str, tiny_qwen: Path, tmp_path: Path
) -> None:
    other = another(tiny_qwen, tmp_path / "b", seed=2)
    spoil, sentence = UNLIKE[case]
    spoil(other)
    with pytest.raises(CheckpointError, match=sentence):
        merge.merge(tiny_qwen, other, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_weights_outside_and_folders_that_are_there_are_refused(
    tiny_qwen: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="weight"):
        merge.merge(tiny_qwen, tiny_qwen, tmp_path / "out", weight=1.5)
    with pytest.raises(InputError, match="there already"):
        merge.merge(tiny_qwen, tiny_qwen, tmp_path)


def test_memory_does_not_grow_with_the_tensors(
    tiny_qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "CHUNK_ELEMENTS", 1 << 16)
    count = 1 << 22  # 16 MB
    for name in "ab":
        with (tmp_path / name).open("wb") as file:
            file.write(headers.write({"w": ("F32", (count,))}, {}))
            file.write(bytes(4 * count))
    place = [(tmp_path / name, headers.read(tmp_path / name, name)["w"]) for name in "ab"]
    tracemalloc.start()
    size = sum(len(chunk) for chunk in merge._merged("w", merge._Pair(*place), 0.5))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == 4 * count
    assert peak < 4 << 20


def test_the_command_leaves_nothing_on_a_full_disk(tiny_qwen: Path, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = subprocess.run(
        [sys.executable, "-m", "distiller", "merge", str(tiny_qwen), str(tiny_qwen), "--out",
         str(tmp_path / "out")],
        capture_output=True, text=True, check=False, preexec_fn=limit,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("disk: no room")
    assert not list(tmp_path.iterdir())
