"""Taking checkpoints into the store: validated, addressed by content, all or nothing."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import IntegrityError, transaction

from distiller import checkpoints
from distiller.checkpoints import CheckpointInfo
from distiller.errors import CheckpointError
from webapp.checkpoints.models import LIVE_UPLOADS, Checkpoint, Upload
from webapp.core import store
from webapp.core.errors import UserError
from webapp.core.locks import lock_store
from webapp.core.models import User
from webapp.core.text import storable
from webapp.projects.access import place_for, seen_by
from webapp.projects.models import Project

if TYPE_CHECKING:
    from webapp.runs.models import Run

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*){0,3}")
_FILE_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")  # no disk takes more than 255
_DOCUMENTS = {".md", ".pdf"}
_NAMED = 8  # of what was left out


def check_name(name: str, field: str = "name") -> str:
    """``name`` without surrounding space; raises UserError where it is unusable or taken.

    Names are unique in the whole installation. The refusal says so and nothing else: not what has
    the name, nor whose it is, as that may be none of the asking person's business.
    """
    name = name.strip()
    if len(name) > 200 or not _NAME.fullmatch(name):
        raise UserError(
            f"{field}: {name[:60]!r} will not do; use up to 200 letters, digits, dots, hyphens and "
            "underscores, with at most three slashes.",
            field,
        )
    if (
        Checkpoint.objects.filter(name=name).exists()
        or Upload.objects.filter(name=name, state__in=LIVE_UPLOADS).exists()
    ):
        raise name_taken(name, field)
    return name


def name_taken(name: str, field: str = "name") -> UserError:
    """The one refusal of a name that somebody has given already."""
    return UserError(f"{field}: {name!r} is taken in this installation; choose another.", field)


def register_folder(
    *,
    owner: User,
    project: Project | None = None,
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
    project = project or place_for(owner)
    name = check_name(name)
    with _incoming() as place:
        _copy_tree(folder, place, link=move)
        # What is inspected is the copy: nobody can change it between the look and the use.
        checkpoint = _store(place, _inspect(place), owner, project, name, parent, produced_by)
    if move:
        transaction.on_commit(lambda: shutil.rmtree(folder))
    return checkpoint


def register_verified(
    *, owner: User, project: Project, name: str, folder: Path, info: CheckpointInfo
) -> Checkpoint:
    """Move a folder of the store, which nobody else can write to, to its address.

    ``info`` is what a verification found in it. Raises UserError where the name is taken.
    """
    return _store(folder, info, owner, project, name, None, None)


def _store(  # noqa: PLR0917 - a row's values, given by two callers
    place: Path,
    info: CheckpointInfo,
    owner: User,
    project: Project,
    name: str,
    parent: Checkpoint | None,
    produced_by: Run | None,
) -> Checkpoint:
    relative = f"checkpoints/{info.content_hash}"
    store.publish(relative, place)
    try:
        with transaction.atomic():
            lock_store()  # no sweep between the row and the files
            store.publish(relative, place)  # nothing to send, unless one has just removed it
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
                project=project,
            )
            _settle(place, Path(settings.MEDIA_ROOT) / relative)
    except IntegrityError:
        raise name_taken(name) from None
    return checkpoint


def completions_only(*, owner: User, project: Project, name: str) -> Checkpoint:
    """The owner's checkpoint of that name for completions made elsewhere; made where there is none.

    Nobody but staff puts such scores under a model that is here or served, or under another's name,
    and nobody puts them under what a project has for itself but in a run of that project: raises
    UserError.
    """
    name = name.strip()
    # A file's rows may name anything; what no database holds is refused below, as no name.
    seen = seen_by(owner, Checkpoint.objects.filter(name=storable(name)))
    existing = seen.select_related("endpoint", "project").first()
    if existing is None:  # or none that they may know of
        return Checkpoint.objects.create(
            name=check_name(name, "checkpoint"), owner=owner, project=project
        )
    # One whose files were deleted keeps their hash, and the scores that were drawn from them.
    is_model = bool(existing.content_hash) or existing.has_files or hasattr(existing, "endpoint")
    if not owner.is_staff and (is_model or existing.owner_id != owner.pk):
        whose = "a model of this installation" if is_model else "somebody else's"
        raise UserError(
            f"checkpoint: {existing.name!r} is {whose}; give completions made elsewhere another "
            "name.",
            "checkpoint",
        )
    if existing.project_id != project.pk and not existing.project.open:
        raise UserError(
            f"checkpoint: {existing.name!r} lies in the project {existing.project.name!r}; import "
            "them there, or give another name.",
            "checkpoint",
        )
    return existing


def _inspect(folder: Path) -> checkpoints.CheckpointInfo:
    try:
        return checkpoints.inspect(folder)
    except CheckpointError as error:
        # The sentence may name the folder, which is ours and says nothing to its reader.
        raise refused_folder(error, folder) from None


def refused_folder(error: CheckpointError, folder: Path) -> UserError:
    """What was found wrong with a folder of ours, for whoever sent its files."""
    sentence = str(error).replace(str(folder), "folder").replace(folder.name, "folder")
    return UserError(f"files: {sentence}", "files")


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


def is_left_out(relative: str) -> bool:
    """Whether a name in a folder is none that a checkpoint is loaded from.

    What begins with a dot is git's or an editor's, and a document's name may be anything.
    ``static/js/upload.js`` has the same rule.
    """
    path = PurePosixPath(relative)
    if any(part.startswith(".") for part in path.parts):
        return True
    if path.suffix.lower() not in _DOCUMENTS:
        return False
    try:
        safe_path(relative)
    except UserError:
        return True
    return False


def told_left_out(names: Iterable[str]) -> str:
    """A few of the names for a person to read; blank where there is none."""
    found = sorted(set(names))
    more = f" and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
    return ", ".join(storable(name)[:80] for name in found[:_NAMED]) + more


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
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        place.rename(final)
    except OSError:
        if not final.is_dir():
            raise
