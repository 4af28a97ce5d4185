"""What is in a checkpoint's folder, and whether it may be used. No torch in here.

A folder is accepted only if nothing in it can run code when it is loaded: weights are safetensors,
no pickles, no Python, no ``auto_map``, no links. Its address is the hash of its contents.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from distiller import headers
from distiller.errors import CheckpointError
from evaluator.records import canonical_json

_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"}
_CODE = {".py", ".pyc", ".so", ".dll", ".sh", ".exe", ".ipynb"}
_ALLOWED = {".json", ".safetensors", ".txt", ".md", ".model", ".jinja", ".tiktoken", ".pdf"}
_ALLOWED_NAMES = {"license", "notice", ".gitattributes", "use_policy"}
_ARCHITECTURE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
MOST_CONTEXT_TOKENS = 2**31 - 1  # what the database's column holds
_HASH_BYTES = 1 << 22  # at a time
_MAX_JSON_BYTES = 100_000_000
WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"


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


def inspect(folder: Path, *, hashed: bool = True) -> CheckpointInfo:
    """Read and verify the checkpoint in ``folder`` without loading it.

    Raises CheckpointError with one sentence: what is missing, torn or unsafe. Without ``hashed``
    the content hash is left to whoever asked, and blank.
    """
    files = _files(folder)
    for path in files:
        refuse_name(path.relative_to(folder).as_posix())
    settings = config(folder)
    for path in files:
        if path.suffix == ".json" and path.stat().st_size <= _MAX_JSON_BYTES:
            _refuse_remote_code(path, folder)
    _require_tokenizer(folder)
    elements: Counter[str] = Counter()
    for tensor in weights(folder).values():
        elements[headers.DTYPES[tensor.dtype][0]] += tensor.elements
    if not isinstance(settings.get("model_type"), str) or not settings["model_type"]:
        raise CheckpointError(
            f"{folder.name}: config.json names no model_type; use the config the model was saved "
            "with."
        )
    architectures = settings.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        raise CheckpointError(
            f"{folder.name}: config.json names no architectures; use the config the model was "
            "saved with."
        )
    architecture = architectures[0]
    if not isinstance(architecture, str) or not _ARCHITECTURE.fullmatch(architecture):
        raise CheckpointError(
            f"{folder.name}: config.json's architectures begin with {str(architecture)[:60]!r}, "
            "which names no class; use the config the model was saved with."
        )
    return CheckpointInfo(
        architecture=architecture,
        parameters=sum(elements.values()),
        size_bytes=size_bytes(folder),
        dtype=elements.most_common(1)[0][0],
        context_tokens=_context_tokens(settings),
        has_chat_template=_has_chat_template(folder),
        content_hash=content_hash(folder) if hashed else "",
    )


def config(folder: Path) -> dict[str, Any]:
    """The checkpoint's config.json; raises CheckpointError."""
    return _read_json(folder / "config.json", folder)


def note(folder: Path) -> dict[str, Any] | None:
    """How a checkpoint made here came about: its training.json or merge.json; None elsewhere."""
    for name in ("merge.json", "training.json"):
        if (folder / name).is_file():
            return _read_json(folder / name, folder)
    return None


def size_bytes(folder: Path) -> int:
    """What its files take together."""
    return sum(path.stat().st_size for path in _files(folder))


def content_hash(folder: Path, go_on: Callable[[], None] = lambda: None) -> str:
    """SHA-256 over the sorted (relative name, SHA-256) of every file: a checkpoint's address.

    ``go_on`` is called every few megabytes, to raise where nobody waits for it any more.
    """
    rows = [[path.relative_to(folder).as_posix(), _sha256(path, go_on)] for path in _files(folder)]
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


def _sha256(path: Path, go_on: Callable[[], None]) -> str:
    digest, block = hashlib.sha256(), bytearray(_HASH_BYTES)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(memoryview(block)[:count])
            go_on()
    return digest.hexdigest()


def is_adapter(name: str) -> bool:
    """Whether loading would take a file of that name for an adapter.

    Beside one, transformers reports on the adapter's tensors and is silent about the base's.
    """
    return PurePosixPath(name).name.lower().startswith("adapter_")


def refuse_name(name: str) -> None:
    """Raise CheckpointError where a file of that relative name has no place in a checkpoint."""
    path = PurePosixPath(name)
    suffix = path.suffix.lower()
    if is_adapter(name):
        raise CheckpointError(
            f"{name}: an adapter stands for weights of another model; merge the adapter first and "
            "give the merged model."
        )
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
        model = _read_json(folder / "tokenizer.json", folder).get("model")
        if not isinstance(model, dict) or not model.get("vocab"):
            raise CheckpointError(
                "tokenizer.json: holds no vocabulary; save the tokenizer beside the model again."
            )
        return
    if (folder / "tokenizer.model").is_file():
        return
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return
    raise CheckpointError(
        f"{folder.name}: no tokenizer (tokenizer.json, tokenizer.model, or vocab.json with "
        "merges.txt); save the tokenizer beside the model."
    )


def weights(folder: Path) -> dict[str, headers.Tensor]:
    """All tensors by name, as loading would find them; raises CheckpointError.

    They stand in model.safetensors, or in the files of the index, which must tell the truth of
    every one; no other safetensors file may lie beside them.
    """
    return {name: tensor for name, (_, tensor) in located_weights(folder).items()}


def located_weights(folder: Path) -> dict[str, tuple[Path, headers.Tensor]]:
    """As :func:`weights`, with the file in which each tensor stands."""
    there = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    there = {name: path for name, path in there.items() if path.suffix == ".safetensors"}
    if not there:
        raise CheckpointError(
            f"{folder.name}: no *.safetensors file; save the model with safe serialization."
        )
    where = _weight_map(folder) if (folder / INDEX).exists() else None
    named = {WEIGHTS} if where is None else set(where.values())
    if missing := sorted(named - there.keys()):
        by = "is missing" if where is None else f"named by {INDEX} but missing"
        raise CheckpointError(f"{missing[0]}: {by}; copy it too.")
    if extra := sorted(there.keys() - named):
        raise CheckpointError(
            f"{extra[0]}: weights that nothing would load beside those of "
            f"{WEIGHTS if where is None else INDEX}; remove the file."
        )
    found: dict[str, tuple[Path, headers.Tensor]] = {}
    for file in sorted(named):
        for name, tensor in headers.read(there[file], file).items():
            if where is not None and where.get(name) != file:
                raise CheckpointError(
                    f"{file}: holds {name[:99]!r}, which {INDEX} puts elsewhere; copy both again."
                )
            found[name] = (there[file], tensor)
    if where is not None and (lost := sorted(where.keys() - found.keys())):
        raise CheckpointError(
            f"{where[lost[0]]}: lacks {lost[0][:99]!r}, which {INDEX} puts there; copy both again."
        )
    return found


def _weight_map(folder: Path) -> dict[str, str]:
    """Tensor name → file of a sharded model."""
    weight_map = _read_json(folder / INDEX, folder).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{INDEX}: has no weight_map; copy the file again.")
    return {str(name): str(file) for name, file in weight_map.items()}


def _context_tokens(config: dict[str, Any]) -> int | None:
    for key in ("max_position_embeddings", "n_positions", "max_seq_len"):
        value = config.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        if not 1 <= value <= MOST_CONTEXT_TOKENS:
            raise CheckpointError(
                f"config.json: {key} must lie between 1 and {MOST_CONTEXT_TOKENS:,}; use the "
                "config the model was saved with."
            )
        return value
    text = config.get("text_config")
    return _context_tokens(text) if isinstance(text, dict) else None


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    path = folder / "tokenizer_config.json"
    return path.is_file() and bool(_read_json(path, folder).get("chat_template"))
