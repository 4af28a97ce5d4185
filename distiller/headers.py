"""What a safetensors file says of its tensors, without reading them. No torch in here.

Format (description of the library, 0.8): 8 bytes little-endian header length, a JSON header, then
the tensors' bytes without gaps.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distiller.errors import CheckpointError

# The format allows 100 MB; models of 671B parameters in 163 files need less than 1 MB a file.
MAX_HEADER_BYTES = 32_000_000
METADATA = "__metadata__"
# The format's names of dtypes, with bits per element.
DTYPES = {
    "F64": ("float64", 64),
    "F32": ("float32", 32),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "F8_E4M3": ("float8_e4m3", 8),
    "F8_E5M2": ("float8_e5m2", 8),
    "I64": ("int64", 64),
    "I32": ("int32", 32),
    "I16": ("int16", 16),
    "I8": ("int8", 8),
    "U64": ("uint64", 64),
    "U32": ("uint32", 32),
    "U16": ("uint16", 16),
    "U8": ("uint8", 8),
    "BOOL": ("bool", 8),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor's entry; ``start`` and ``stop`` are bytes from the file's beginning."""

    dtype: str  # the format's name
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def read(path: Path, name: str) -> dict[str, Tensor]:
    """The tensors of a file by name, in the order of their bytes; they must fit the file exactly.

    ``name`` is what messages call the file. Raises CheckpointError for a torn or lying one.
    """
    size, torn = path.stat().st_size, f"{name}: torn or not a safetensors file"
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= size - 8:
            raise CheckpointError(f"{torn} (its header does not fit the file); copy it again.")
        if length > MAX_HEADER_BYTES:
            raise CheckpointError(
                f"{name}: its header is larger than {MAX_HEADER_BYTES // 10**6} MB, which no model "
                "needs; save the model again."
            )
        raw = file.read(length)
    try:
        tensors = _entries(json.loads(raw, object_pairs_hook=_unique), 8 + length)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{torn} (its header cannot be read); copy it again.") from error
    end = 8 + length
    for tensor in tensors.values():
        if tensor.start != end:
            raise CheckpointError(f"{torn} (its tensors overlap or leave gaps); copy it again.")
        end = tensor.stop
    if end != size:
        raise CheckpointError(
            f"{torn} (the header promises {end} bytes, the file has {size}); copy it again."
        )
    if not tensors:
        raise CheckpointError(f"{name}: holds no tensors; save the model again.")
    return tensors


def write(tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """The beginning of a file of these (dtype, shape), whose bytes follow in the same order."""
    header: dict[str, Any] = {METADATA: dict(metadata)}
    start = 0
    for name, (dtype, shape) in tensors.items():
        stop = start + math.prod(shape) * DTYPES[dtype][1] // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)  # tensors begin at a multiple of 8, as the library writes them
    return struct.pack("<Q", len(raw)) + raw


def _entries(header: dict[str, Any], begin: int) -> dict[str, Tensor]:
    found: list[tuple[str, Tensor]] = []
    for name, entry in header.items():
        if name == METADATA:
            continue
        bits = DTYPES[entry["dtype"]][1]
        shape = tuple(_whole(extent) for extent in entry["shape"])
        start, stop = (_whole(offset) for offset in entry["data_offsets"])
        tensor = Tensor(entry["dtype"], shape, begin + start, begin + stop)
        if (stop - start) * 8 != tensor.elements * bits:
            raise ValueError("shape and offsets differ")
        found.append((name, tensor))
    return dict(sorted(found, key=lambda item: (item[1].start, item[1].stop)))


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("not a whole number")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key occurs twice")
    return value
