"""A checkpoint with its card, as a folder, a tar, or pushed to the hub. No torch in here."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

from distiller import checkpoints
from distiller.errors import DistillerError, InputError
from distiller.local import written_whole

CARD = "README.md"


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
    top = out.name.removesuffix(".tar")
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        written_whole(out) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as packed,
    ):
        text = card.encode()
        packed.addfile(_entry(f"{top}/{CARD}", len(text)), io.BytesIO(text))
        for path in _files(checkpoint):
            name = f"{top}/{path.relative_to(checkpoint).as_posix()}"
            with path.open("rb") as source:
                packed.addfile(_entry(name, path.stat().st_size), source)
    return out


def to_hub(
    checkpoint: Path, card: str, repository: str, *, endpoint: str | None = None, private: bool
) -> str:
    """Push the checkpoint with its card to ``repository`` (OWNER/NAME); returns its address.

    The token is huggingface_hub's own (HF_TOKEN, or its login). Raises HubError with one sentence
    where the hub cannot be reached or refuses.
    """
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
    except Exception as error:
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
