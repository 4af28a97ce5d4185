"""What is in a checkpoint's folder, and whether it may be used. No torch in here.

A folder is accepted only if nothing in it can run code when it is loaded: weights are safetensors,
no pickles, no Python, no ``auto_map``, no links. Its address is the hash of its contents.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distiller.errors import CheckpointError
from evaluator.records import canonical_json

_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"}
_CODE = {".py", ".pyc", ".so", ".dll", ".sh", ".exe", ".ipynb"}
_ALLOWED = {".json", ".safetensors", ".txt", ".md", ".model", ".jinja", ".tiktoken", ".pdf"}
_ALLOWED_NAMES = {"license", "notice", ".gitattributes", "use_policy"}
_MAX_JSON_BYTES = 100_000_000
# The safetensors format allows no longer header (its reference reader refuses one).
_MAX_HEADER_BYTES = 100_000_000
# safetensors' names of dtypes, with bits per element (format description of the library, 0.8).
_DTYPES = {
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
class CheckpointInfo:
    """What a checkpoint's files say of it. ``dtype`` is the one of most parameters."""

    architecture: str
    parameters: int
    size_bytes: int
    dtype: str
    context_tokens: int | None
    has_chat_template: bool
    content_hash: str


def inspect(folder: Path) -> CheckpointInfo:
    """Read and verify the checkpoint in ``folder`` without loading it.

    Raises CheckpointError with one sentence: what is missing, torn or unsafe.
    """
    files = _files(folder)
    for path in files:
        _refuse_unsafe(path, folder)
    config = _read_json(folder / "config.json", folder)
    for path in files:
        if path.suffix == ".json" and path.stat().st_size <= _MAX_JSON_BYTES:
            _refuse_remote_code(path, folder)
    _require_tokenizer(folder)
    weights = [path for path in files if path.suffix == ".safetensors"]
    if not weights:
        raise CheckpointError(
            f"{folder.name}: no *.safetensors file; save the model with safe serialization."
        )
    _require_indexed(folder)
    elements: Counter[str] = Counter()
    for path in weights:
        elements.update(_tensor_elements(path, folder))
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        raise CheckpointError(
            f"{folder.name}: config.json names no architectures; use the config the model was "
            "saved with."
        )
    return CheckpointInfo(
        architecture=str(architectures[0]),
        parameters=sum(elements.values()),
        size_bytes=sum(path.stat().st_size for path in files),
        dtype=elements.most_common(1)[0][0],
        context_tokens=_context_tokens(config),
        has_chat_template=_has_chat_template(folder),
        content_hash=content_hash(folder),
    )


def content_hash(folder: Path) -> str:
    """SHA-256 over the sorted (relative name, SHA-256) of every file: a checkpoint's address."""
    rows = [[path.relative_to(folder).as_posix(), _sha256(path)] for path in _files(folder)]
    return hashlib.sha256(canonical_json(rows).encode()).hexdigest()


def _files(folder: Path) -> list[Path]:
    """All regular files below ``folder``, sorted by relative name; links are refused."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; give a checkpoint's folder.")
    files = []
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise CheckpointError(
                f"{path.relative_to(folder)}: symbolic links are not accepted; copy the file."
            )
        if path.is_dir():
            continue
        if not path.is_file():
            raise CheckpointError(
                f"{path.relative_to(folder)}: not a regular file; remove it from the checkpoint."
            )
        files.append(path)
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_unsafe(path: Path, folder: Path) -> None:
    name, suffix = path.relative_to(folder), path.suffix.lower()
    if suffix in _PICKLES:
        raise CheckpointError(
            f"{name}: pickled files can run code when they are loaded; "
            "convert the weights to safetensors and remove it."
        )
    if suffix in _CODE:
        raise CheckpointError(
            f"{name}: a checkpoint must bring no code; remove the file, or use an architecture "
            "that transformers has itself."
        )
    if suffix not in _ALLOWED and path.name.lower() not in _ALLOWED_NAMES:
        raise CheckpointError(f"{name}: a checkpoint needs no file of this kind; remove it.")


def _read_json(path: Path, folder: Path) -> dict[str, Any]:
    name = path.relative_to(folder)
    if not path.is_file():
        raise CheckpointError(f"{folder.name}: no {name}; give the folder the model was saved to.")
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise CheckpointError(f"{name}: larger than {_MAX_JSON_BYTES // 10**6} MB; not read.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise CheckpointError(f"{name}: not JSON ({error}); copy the file again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{name}: must be a JSON object; copy the file again.")
    return value


def _refuse_remote_code(path: Path, folder: Path) -> None:
    if path.name.startswith(("vocab", "special_tokens_map", "added_tokens")):
        return  # a vocabulary may hold any word as a key
    if "auto_map" in _read_json(path, folder):
        raise CheckpointError(
            f"{path.relative_to(folder)}: auto_map asks for remote code, which is never run; "
            "use an architecture that transformers has itself and remove the key."
        )


def _require_tokenizer(folder: Path) -> None:
    if (folder / "tokenizer.json").is_file():
        _read_json(folder / "tokenizer.json", folder)
        return
    if (folder / "tokenizer.model").is_file():
        return
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return
    raise CheckpointError(
        f"{folder.name}: no tokenizer (tokenizer.json, tokenizer.model, or vocab.json with "
        "merges.txt); save the tokenizer beside the model."
    )


def _require_indexed(folder: Path) -> None:
    """Every file that a sharded model's index names must be there."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return
    weight_map = _read_json(index, folder).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index.name}: has no weight_map; copy the file again.")
    missing = sorted({str(name) for name in weight_map.values() if not (folder / name).is_file()})
    if missing:
        raise CheckpointError(f"{missing[0]}: named by {index.name} but missing; copy it too.")


def _tensor_elements(path: Path, folder: Path) -> Counter[str]:
    """Elements per dtype of one safetensors file; its header must fit its size exactly.

    Format: 8 bytes little-endian header length, a JSON header, then the tensors' bytes.
    """
    name, size = path.relative_to(folder), path.stat().st_size
    torn = f"{name}: torn or not a safetensors file"
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
            raise CheckpointError(f"{torn} (its header does not fit the file); copy it again.")
        raw = file.read(length)
    try:
        header = json.loads(raw)
        entries = {key: value for key, value in header.items() if key != "__metadata__"}
        spans, elements = _spans(entries)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{torn} (its header cannot be read); copy it again.") from error
    end = 0
    for start, stop in sorted(spans):
        if start != end or stop < start:
            raise CheckpointError(f"{torn} (its tensors overlap or leave gaps); copy it again.")
        end = stop
    if 8 + length + end != size:
        raise CheckpointError(
            f"{torn} (the header promises {8 + length + end} bytes, the file has {size}); "
            "copy it again."
        )
    if not elements:
        raise CheckpointError(f"{name}: holds no tensors; save the model again.")
    return elements


def _spans(entries: dict[str, Any]) -> tuple[list[tuple[int, int]], Counter[str]]:
    spans, elements = [], Counter[str]()
    for entry in entries.values():
        dtype, bits = _DTYPES[entry["dtype"]]
        shape = [int(extent) for extent in entry["shape"]]
        start, stop = (int(offset) for offset in entry["data_offsets"])
        count = math.prod(shape)
        if min(shape, default=0) < 0 or (stop - start) * 8 != count * bits:
            raise ValueError("shape and offsets differ")
        spans.append((start, stop))
        elements[dtype] += count
    return spans, elements


def _context_tokens(config: dict[str, Any]) -> int | None:
    for key in ("max_position_embeddings", "n_positions", "max_seq_len"):
        if isinstance(config.get(key), int):
            return int(config[key])
    text = config.get("text_config")
    return _context_tokens(text) if isinstance(text, dict) else None


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    path = folder / "tokenizer_config.json"
    return path.is_file() and bool(_read_json(path, folder).get("chat_template"))
