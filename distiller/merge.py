"""Weight merging of two checkpoints of one base: the mean of their weights. No torch in here.

Kimi k1.5 (arXiv 2501.12599 §3.4, long2short) averages a long-thinking model with a short one and
needs no training for it. The tensors are streamed a few million numbers at a time, so that memory
stays flat whatever the models' size.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from distiller import checkpoints, headers
from distiller.errors import CheckpointError, InputError
from distiller.headers import Tensor
from evaluator.records import canonical_json

NOTE = "merge.json"
CHUNK_ELEMENTS = 1 << 22
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
# What a config says of the file that it came from, and not of the model.
_FREE_FIELDS = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"}
_FREE_FILES = {NOTE, "training.json", "README.md", "generation_config.json"}

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Pair:
    """A tensor in both checkpoints, each with the file in which it stands."""

    first: tuple[Path, Tensor]
    second: tuple[Path, Tensor]


def merge(
    first: Path,
    second: Path,
    out: Path,
    *,
    weight: float = 0.5,
    on_progress: OnProgress = lambda done, total: None,
) -> checkpoints.CheckpointInfo:
    """Write ``weight`` · first + (1 − weight) · second, tensor by tensor, as checkpoint ``out``.

    Sums are made in float32 (float64 for such tensors) and saved in the first one's dtype;
    everything but weights is the first one's, and merge.json names both parents. Progress counts
    bytes written. Raises InputError for a weight outside 0 … 1 or an ``out`` that is there,
    CheckpointError where the two are not of one architecture, shape and tokenizer, or a sum is not
    finite; ``out`` appears only when it is complete.
    """
    if not 0 <= weight <= 1:
        raise InputError(f"weight: {weight} is not between 0 and 1; it is the first one's share.")
    if out.exists():
        raise InputError(f"out: {out} is there already; choose a new folder.")
    parents = [(checkpoints.inspect(folder), folder) for folder in (first, second)]
    _require_alike(first, second)
    pairs = _pairs(first, second)
    part = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        _copy_rest(first, part)
        _write_weights(first, part, pairs, weight, on_progress)
        note = {
            "schema": "retort/merge/1",
            "method": "linear",
            "parents": [
                {
                    "name": folder.name,
                    "content_hash": info.content_hash,
                    "weight": share,
                    "note": checkpoints.note(folder),
                }
                for (info, folder), share in zip(parents, (weight, 1 - weight), strict=True)
            ],
        }
        (part / NOTE).write_text(json.dumps(note, indent=1, sort_keys=True) + "\n")
        merged = checkpoints.inspect(part)
        os.rename(part, out)  # noqa: PTH104
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return merged


def _require_alike(first: Path, second: Path) -> None:
    """The two must be trainings of one base: same config and tokenizer."""
    one, other = checkpoints.config(first), checkpoints.config(second)
    for field in sorted((one.keys() | other.keys()) - _FREE_FIELDS):
        if canonical_json(one.get(field)) != canonical_json(other.get(field)):
            raise CheckpointError(
                f"config.json: {field} is {one.get(field)!r} in {first} and {other.get(field)!r} "
                f"in {second}; merge two checkpoints of one base."
            )
    for file in ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt"):
        if _content(first / file) != _content(second / file):
            raise CheckpointError(
                f"{file}: differs between {first} and {second}; merge two checkpoints with one "
                "tokenizer."
            )


def _content(path: Path) -> Any:
    """JSON as its value, other files as bytes; None where there is none."""
    if not path.is_file():
        return None
    raw = path.read_bytes()
    return json.loads(raw) if path.suffix == ".json" else raw


def _pairs(first: Path, second: Path) -> dict[str, _Pair]:
    one, other = checkpoints.located_weights(first), checkpoints.located_weights(second)
    if odd := sorted(one.keys() ^ other.keys()):
        has = first if odd[0] in one else second
        raise CheckpointError(
            f"{odd[0][:99]}: only {has} holds this tensor; merge two checkpoints of one base."
        )
    for name, (_, tensor) in one.items():
        twin = other[name][1]
        if tensor.shape != twin.shape:
            raise CheckpointError(
                f"{name[:99]}: has the shape {tensor.shape} in {first} and {twin.shape} in "
                f"{second}; merge two checkpoints of one base."
            )
        if tensor.dtype not in _FLOATS or twin.dtype not in _FLOATS:
            raise CheckpointError(
                f"{name[:99]}: holds no floating-point numbers, of which a mean could be taken; "
                "merge checkpoints that are not quantised."
            )
    return {name: _Pair(place, other[name]) for name, place in one.items()}


def _copy_rest(source: Path, part: Path) -> None:
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if path.is_file() and path.suffix != ".safetensors" and str(name) not in _FREE_FILES:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, part / name)


def _write_weights(
    source: Path, part: Path, pairs: dict[str, _Pair], weight: float, on_progress: OnProgress
) -> None:
    """The first checkpoint's files again, each with the merged tensors in the same order."""
    total = sum(pair.first[1].stop - pair.first[1].start for pair in pairs.values())
    done = 0
    for path in sorted({pair.first[0] for pair in pairs.values()}):
        mine = {name: pair for name, pair in pairs.items() if pair.first[0] == path}
        mine = dict(sorted(mine.items(), key=lambda item: item[1].first[1].start))
        target = part / path.relative_to(source)
        with target.open("wb") as file:
            described = {n: (p.first[1].dtype, p.first[1].shape) for n, p in mine.items()}
            file.write(headers.write(described, {"format": "pt"}))
            for name, pair in mine.items():
                for chunk in _merged(name, pair, weight):
                    file.write(chunk)
                    done += len(chunk)
                    on_progress(done, total)
            file.flush()
            os.fsync(file.fileno())


def _merged(name: str, pair: _Pair, weight: float) -> Iterator[bytes]:
    (_, one), (_, other) = pair.first, pair.second
    wide: Any = np.float64 if one.dtype == "F64" else np.float32
    with pair.first[0].open("rb") as first, pair.second[0].open("rb") as second:
        first.seek(one.start)
        second.seek(other.start)
        for begin in range(0, one.elements, CHUNK_ELEMENTS):
            count = min(CHUNK_ELEMENTS, one.elements - begin)
            mean = wide(weight) * _read(first, one.dtype, count).astype(wide)
            mean += wide(1 - weight) * _read(second, other.dtype, count).astype(wide)
            with np.errstate(over="ignore"):  # what overflows is refused in the next line
                narrow = _narrowed(mean, one.dtype)
            if not np.isfinite(_widened(narrow, one.dtype)).all():
                raise CheckpointError(
                    f"{name[:99]}: the mean holds numbers that are not finite; look at what the "
                    "two trainings ended in."
                )
            yield narrow.tobytes()


def _read(file: IO[bytes], dtype: str, count: int) -> NDArray[Any]:
    raw = file.read(count * headers.DTYPES[dtype][1] // 8)
    return _widened(np.frombuffer(raw, _FLOATS[dtype]), dtype)


def _widened(numbers: NDArray[Any], dtype: str) -> NDArray[Any]:
    """bfloat16, which numpy has not, as float32: its bits are the upper half of that."""
    if dtype != "BF16":
        return numbers
    return (numbers.astype("<u4") << 16).view("<f4")


def _narrowed(numbers: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Numbers in the dtype they are saved in, rounded to nearest, ties to even."""
    if dtype != "BF16":
        return numbers.astype(_FLOATS[dtype])
    bits = numbers.astype("<f4").view("<u4").astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    lost = np.isnan(numbers)  # rounding could carry such bits over into a number
    return np.where(lost, 0x7FC0, rounded).astype("<u2")
