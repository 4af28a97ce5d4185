"""Taking checkpoints into the store: validated, addressed by content, all or nothing."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.db import IntegrityError, transaction

from distiller import checkpoints
from distiller.errors import CheckpointError
from webapp.checkpoints.models import Checkpoint
from webapp.core.errors import UserError
from webapp.core.models import User

if TYPE_CHECKING:
    from webapp.runs.models import Run

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*){0,3}")
_FILE_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")  # no disk takes more than 255


def check_name(name: str, field: str = "name") -> str:
    """``name`` without surrounding space; raises UserError where it is unusable or taken."""
    name = name.strip()
    if len(name) > 200 or not _NAME.fullmatch(name):
        raise UserError(
            f"{field}: {name[:60]!r} will not do; use up to 200 letters, digits, dots, hyphens and "
            "underscores, with at most three slashes.",
            field,
        )
    if Checkpoint.objects.filter(name=name).exists():
        raise UserError(f"{field}: a checkpoint is called {name!r} already; choose another.", field)
    return name


def register_folder(
    *,
    owner: User,
    name: str,
    folder: Path,
    parent: Checkpoint | None = None,
    produced_by: Run | None = None,
    move: bool = False,
) -> Checkpoint:
    """Take a checkpoint's folder into the store; equal contents share their files.

    With ``move`` the folder itself is gone once the row is committed. Raises UserError with the
    reason where the name or the folder cannot be used; nothing is left behind then.
    """
    name = check_name(name)
    with _incoming() as place:
        _copy_tree(folder, place, link=move)
        # What is inspected is the copy: nobody can change it between the look and the use.
        info = _inspect(place)
        relative = f"checkpoints/{info.content_hash}"
        try:
            with transaction.atomic():
                checkpoint = Checkpoint.objects.create(
                    name=name,
                    content_hash=info.content_hash,
                    path=relative,
                    architecture=info.architecture[:100],
                    parameters=info.parameters,
                    size_bytes=info.size_bytes,
                    dtype=info.dtype,
                    context_tokens=info.context_tokens,
                    has_chat_template=info.has_chat_template,
                    parent=parent,
                    produced_by=produced_by,
                    owner=owner,
                )
                _settle(place, Path(settings.MEDIA_ROOT) / relative)
        except IntegrityError:
            raise UserError(f"name: a checkpoint is called {name!r} already.", "name") from None
    if move:
        transaction.on_commit(lambda: shutil.rmtree(folder))
    return checkpoint


def receive_upload(
    *, owner: User, name: str, files: Iterable[tuple[str, UploadedFile[Any]]]
) -> Checkpoint:
    """Take an uploaded folder: (relative name, file) pairs as a browser's folder picker gives them.

    The common top folder's name is dropped. Raises UserError with the reason for a refusal.
    """
    check_name(name)
    uploads = list(files)
    if not uploads:
        raise UserError("files: none came; choose the checkpoint's folder.", "files")
    if len(uploads) > settings.RETORT_UPLOAD_FILES:
        raise UserError(
            f"files: more than {settings.RETORT_UPLOAD_FILES} came; choose one checkpoint.", "files"
        )
    paths = [safe_path(relative) for relative, _ in uploads]
    if all(len(path.parts) > 1 and path.parts[0] == paths[0].parts[0] for path in paths):
        paths = [PurePosixPath(*path.parts[1:]) for path in paths]
    names = {str(path).lower() for path in paths}
    folders = {str(parent).lower() for path in paths for parent in path.parents}
    if len(names) < len(paths) or names & folders:
        raise UserError("files: two have the same name; choose one checkpoint.", "files")
    with _incoming() as place:
        for path, (_, upload) in zip(paths, uploads, strict=True):
            target = place / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                for chunk in upload.chunks():
                    file.write(chunk)
        return register_folder(owner=owner, name=name, folder=place)


def completions_only(*, owner: User, name: str) -> Checkpoint:
    """The checkpoint of that name; one without files is made where there is none."""
    existing = Checkpoint.objects.filter(name=name.strip()).first()
    if existing is not None:
        return existing
    return Checkpoint.objects.create(name=check_name(name, "checkpoint"), owner=owner)


def delete_checkpoint(checkpoint: Checkpoint) -> None:
    """Delete a checkpoint that nothing was measured with; its files go with their last name."""
    if checkpoint.evaluations.exists():
        raise UserError(
            f"{checkpoint.name}: has evaluations, which would lose their meaning; keep it."
        )
    if _in_use(checkpoint):
        raise UserError(f"{checkpoint.name}: an unfinished run uses it; cancel the run first.")
    relative = checkpoint.path
    with transaction.atomic():
        checkpoint.delete()
        if relative and not Checkpoint.objects.filter(path=relative).exists():
            folder = Path(settings.MEDIA_ROOT) / relative
            transaction.on_commit(lambda: shutil.rmtree(folder))


def _in_use(checkpoint: Checkpoint) -> bool:
    from webapp.runs.models import FINAL_STATES, Stage

    unfinished = Stage.objects.exclude(run__state__in=FINAL_STATES)
    return any(
        unfinished.filter(**{f"config__{role}": checkpoint.pk}).exists()
        for role in ("teacher", "base")
    )


def _inspect(folder: Path) -> checkpoints.CheckpointInfo:
    try:
        return checkpoints.inspect(folder)
    except CheckpointError as error:
        # The sentence may name the folder, which is ours and says nothing to its reader.
        sentence = str(error).replace(str(folder), "folder").replace(folder.name, "folder")
        raise UserError(f"files: {sentence}", "files") from None


def safe_path(relative: str) -> PurePosixPath:
    """A name from outside as a plain relative path; raises UserError for any other."""
    path = PurePosixPath(relative.replace("\\", "/"))
    parts = path.parts
    if not parts or len(parts) > 3 or not all(_FILE_PART.fullmatch(part) for part in parts):
        raise UserError(
            f"files: the name {relative[:80]!r} is not accepted; use plain names in one folder.",
            "files",
        )
    return path


@contextmanager
def _incoming() -> Iterator[Path]:
    """An empty folder in the store, on the same disk as its final place; gone afterwards."""
    place = Path(settings.MEDIA_ROOT) / "checkpoints" / f".incoming-{uuid.uuid4().hex}"
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        if place.exists():
            shutil.rmtree(place)


def _copy_tree(folder: Path, place: Path, *, link: bool) -> None:
    """Copy (or hard-link) the tree; links and special files are left for inspection to refuse."""
    if not folder.is_dir():
        raise UserError(f"folder: {folder} is no folder; give a checkpoint's folder.", "folder")

    def copy(source: str, target: str) -> str:
        if link:
            try:
                os.link(source, target, follow_symlinks=False)
            except OSError:  # another disk
                return shutil.copy2(source, target, follow_symlinks=False)
            return target
        return shutil.copy2(source, target, follow_symlinks=False)

    shutil.copytree(folder, place, symlinks=True, copy_function=copy, dirs_exist_ok=True)


def _settle(place: Path, final: Path) -> None:
    """Move the folder to its address; where the same contents lie already, they stay."""
    try:
        place.rename(final)
    except OSError:
        if not final.is_dir():
            raise
