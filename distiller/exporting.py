"""A checkpoint with its card, as a folder, a tar, or pushed to the hub. No torch in here."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

from distiller import checkpoints
from distiller.errors import CheckpointError, DistillerError, InputError
from distiller.local import written_whole

CARD = "README.md"
_BLOCK_BYTES = 1 << 20


class HubError(DistillerError):
    """The hub could not be reached, or did not take the files."""

    transient = True


def to_folder(checkpoint: Path, card: str, out: Path) -> Path:
    """Copy the checkpoint with its card to ``out``, which appears when it is complete.

    Raises CheckpointError for a checkpoint that is not whole, InputError where ``out`` is there.
    """
    checkpoints.inspect(checkpoint)
    _require_new(out)
    part = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        for path in _files(checkpoint):
            (part / path.relative_to(checkpoint)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, part / path.relative_to(checkpoint))
        (part / CARD).write_text(card, encoding="utf-8")
        os.rename(part, out)  # noqa: PTH104
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def to_tar(checkpoint: Path, card: str, out: Path) -> Path:
    """Write the checkpoint with its card as the tar ``out``, one folder named after the file.

    The same checkpoint and card give the same bytes. Raises as :func:`to_folder` does.
    """
    checkpoints.inspect(checkpoint)
    _require_new(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(out) as file:
        for block in tar_blocks(checkpoint, card, out.name.removesuffix(".tar")):
            file.write(block)
    return out


def tar_blocks(checkpoint: Path, card: str | None, top: str) -> Iterator[bytes]:
    """The tar of a checkpoint, a block at a time: as long as :func:`tar_bytes` says.

    Without a card the folder's own README.md stands where it has one.
    """
    size = 0
    for name, source in _members(checkpoint, card, top):
        length = len(source) if isinstance(source, bytes) else source.stat().st_size
        head = _entry(name, length).tobuf(tarfile.PAX_FORMAT)
        yield head
        if isinstance(source, bytes):
            yield source
        else:
            yield from _exactly(source, length)
        padding = -length % tarfile.BLOCKSIZE
        yield bytes(padding)
        size += len(head) + length + padding
    yield bytes(_tail(size))


def tar_bytes(checkpoint: Path, card: str | None, top: str) -> int:
    """How long the tar is."""
    size = 0
    for name, source in _members(checkpoint, card, top):
        length = len(source) if isinstance(source, bytes) else source.stat().st_size
        head = len(_entry(name, length).tobuf(tarfile.PAX_FORMAT))
        size += head + length + -length % tarfile.BLOCKSIZE
    return size + _tail(size)


def _tail(size: int) -> int:
    """Two empty blocks, and up to a whole record."""
    end = size + 2 * tarfile.BLOCKSIZE
    return end + -end % tarfile.RECORDSIZE - size


def _members(checkpoint: Path, card: str | None, top: str) -> Iterator[tuple[str, bytes | Path]]:
    if card is not None:
        yield f"{top}/{CARD}", card.encode()
    elif (checkpoint / CARD).is_file():
        yield f"{top}/{CARD}", checkpoint / CARD
    for path in _files(checkpoint):
        yield f"{top}/{path.relative_to(checkpoint).as_posix()}", path


def _exactly(path: Path, length: int) -> Iterator[bytes]:
    """The file's bytes; raises CheckpointError where it has become shorter meanwhile."""
    left = length
    with path.open("rb") as source:
        while left:
            block = source.read(min(_BLOCK_BYTES, left))
            if not block:
                raise CheckpointError(f"{path.name}: changed while it was read; export it again.")
            left -= len(block)
            yield block


def to_hub(
    checkpoint: Path, card: str, repository: str, *, endpoint: str | None = None, private: bool
) -> str:
    """Push the checkpoint with its card to ``repository`` (OWNER/NAME); returns its address.

    The token is huggingface_hub's own (HF_TOKEN, or its login). Raises HubError with one sentence
    where the hub cannot be reached or refuses.
    """
    from httpx2 import HTTPError  # what huggingface_hub asks through
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HFValidationError

    checkpoints.inspect(checkpoint)
    api = HfApi(endpoint=endpoint)
    operations = [CommitOperationAdd(CARD, card.encode())] + [
        CommitOperationAdd(path.relative_to(checkpoint).as_posix(), path)
        for path in _files(checkpoint)
    ]
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.create_commit(repository, operations, commit_message="Upload the checkpoint")
    except HFValidationError as error:
        raise InputError(f"hub: {repository!r} is no OWNER/NAME ({_line(error)}).") from error
    # Refusals and unreachable hosts are OSError or HTTPError; its uploader of large files and its
    # readers of answers raise the other two.
    except (OSError, HTTPError, RuntimeError, ValueError) as error:
        raise HubError(
            f"hub: {repository} could not be pushed ({_line(error)}); nothing is lost here, try "
            "again, or export a folder."
        ) from error
    return str(done.commit_url)


def _files(checkpoint: Path) -> list[Path]:
    """The checkpoint's files less an earlier card."""
    found = (path for path in checkpoint.rglob("*") if path.is_file())
    return sorted(path for path in found if path != checkpoint / CARD)


def _require_new(out: Path) -> None:
    if out.exists():
        raise InputError(f"out: {out} is there already; choose a new name.")


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
