"""Receiving a checkpoint's folder in pieces: resumable, in quarantine, nothing half-taken.

A row says how much of a file counts; the bytes lie under ``uploads/<upload>/`` in the store, named
after the row, never after what the sender calls them. What was written past the row's offset (the
server died before the row was updated) is written over by the next piece.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import struct
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.db import IntegrityError, transaction
from django.db.models import Sum
from django.db.models.functions import Coalesce
from django.http import UnreadablePostError
from django.utils import timezone

from distiller import checkpoints, headers
from distiller.errors import CheckpointError
from webapp.checkpoints.models import LIVE_UPLOADS, Checkpoint, Upload, UploadFile
from webapp.checkpoints.services import check_name, safe_path
from webapp.config import celery
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.projects.access import place_for
from webapp.projects.models import Project
from webapp.runs.models import KeptChats

CHECKSUMS = ("sha1", "sha256")
_READ_BYTES = 1 << 20
_SUBMITTED = (Upload.State.CHECKING, Upload.State.REGISTERED)


class UploadError(Exception):
    """Why a piece was not taken; the base of the reasons below."""


class OffsetError(UploadError):
    """The piece does not begin where the file ends."""


class ChecksumError(UploadError):
    """The piece is not what its sender hashed; none of it was kept."""


class BusyError(UploadError):
    """Another request is writing to the same file."""


class Readable(Protocol):
    """What a piece is read from: a request."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, none at the end."""


def begin(
    owner: User,
    name: str,
    files: Sequence[tuple[str, int]] = (),
    project: Project | None = None,
) -> Upload:
    """Begin an upload, with the (relative name, bytes) of its ``files`` where they are known.

    Raises UserError for an unusable or taken name and for the first file that will not do, before a
    byte of any was sent; nothing is left behind then.
    """
    project = place_for(owner, project)
    name = check_name(name)
    if files:
        paths = [str(safe_path(relative)) for relative, _ in files]
        _require_distinct(paths)
        _require_model(paths)
    with transaction.atomic():
        upload = Upload.objects.create(owner=owner, project=project, name=name)
        for relative, length_bytes in files:
            declare(upload, relative, length_bytes)
    return upload


def receive_whole(
    owner: User,
    name: str,
    files: Iterable[tuple[str, UploadedFile[Any]]],
    project: Project | None = None,
) -> Upload:
    """Take an uploaded folder in one go: (relative name, file) pairs as a browser's form has them.

    The common top folder's name is dropped. Raises UserError with the reason for a refusal; nothing
    is left behind then.
    """
    sent = list(files)
    if not sent:
        raise UserError("files: none came; choose the checkpoint's folder.", "files")
    paths = [safe_path(relative) for relative, _ in sent]
    if all(len(path.parts) > 1 and path.parts[0] == paths[0].parts[0] for path in paths):
        paths = [PurePosixPath(*path.parts[1:]) for path in paths]
    pairs = [(str(path), file.size or 0) for path, (_, file) in zip(paths, sent, strict=True)]
    upload = begin(owner, name, pairs, project)
    try:
        rows = {row.path: row for row in upload.files.all()}
        for path, (_, file) in zip(paths, sent, strict=True):
            append(rows[str(path)], 0, file)
        submit(upload)
    except BaseException:  # whatever it was, a half-taken upload stays for nobody
        delete(upload)
        raise
    return upload


def declare(upload: Upload, relative: str, length_bytes: int) -> UploadFile:
    """The file of that name in an upload that is on its way; asked again, the same one.

    What a checkpoint must not hold is refused before its bytes are sent. Raises UserError with the
    reason: the name, the length, the number of files, the quota, the disk.
    """
    if upload.state not in (Upload.State.RECEIVING, Upload.State.FETCHING):
        raise _closed(upload)
    path = str(safe_path(relative))
    try:
        checkpoints.refuse_name(path)
    except CheckpointError as error:
        raise UserError(f"files: {error}", "files") from None
    if length_bytes < 0:
        raise UserError(f"files: {path} has a negative length.", "files")
    with transaction.atomic():
        # One at a time for each person: the quota is looked at and used in one go.
        User.objects.select_for_update().get(pk=upload.owner_id)
        known = upload.files.filter(path__iexact=path).first()
        if known is not None:
            if known.path == path and known.length_bytes == length_bytes:
                return known
            raise UserError(
                f"files: {path} came already with {known.length_bytes:,} bytes; delete the upload "
                "and begin again if the file changed.",
                "files",
            )
        _require_no_folder(upload, path)
        if upload.files.count() >= settings.RETORT_UPLOAD_FILES:
            raise UserError(
                f"files: more than {settings.RETORT_UPLOAD_FILES} came; choose one checkpoint.",
                "files",
            )
        _require_room(upload.owner, length_bytes)
        try:
            return UploadFile.objects.create(upload=upload, path=path, length_bytes=length_bytes)
        except IntegrityError:  # a lower case that the database and ``iexact`` see differently
            raise UserError(
                "files: two have the same name; choose one checkpoint.", "files"
            ) from None


def _require_no_folder(upload: Upload, path: str) -> None:
    """A name must be a file's or a folder's, not both; cases are the same, as on some disks."""
    parts = path.lower().split("/")
    folders = {"/".join(parts[:depth]) for depth in range(1, len(parts))}
    for known in upload.files.values_list("path", flat=True):
        lower = known.lower()
        if lower in folders or lower.startswith(f"{path.lower()}/"):
            raise UserError(
                f"files: {known} and {path} cannot both be there; choose one checkpoint.", "files"
            )


def append(
    file: UploadFile,
    offset_bytes: int,
    piece: Readable,
    checksum: tuple[str, bytes] | None = None,
    *,
    state: Upload.State = Upload.State.RECEIVING,
) -> int:
    """Append a piece that begins at ``offset_bytes``; returns the new offset. Memory stays flat.

    Where the connection breaks, what came counts, unless a ``checksum`` (algorithm, digest) of the
    whole piece was promised. Raises OffsetError, ChecksumError, BusyError; UserError where the
    upload is not in ``state`` (what a worker fetches, no browser adds to) or the piece runs past
    the file's end.
    """
    if file.upload.state != state:
        raise _closed(file.upload)
    place = place_of(file)
    place.parent.mkdir(parents=True, exist_ok=True)
    with _locked(place) as target:
        file.refresh_from_db()
        if offset_bytes != file.offset_bytes:
            raise OffsetError(f"the file ends at {file.offset_bytes}, not at {offset_bytes}")
        digest = hashlib.new(checksum[0]) if checksum else None
        target.seek(offset_bytes)
        target.truncate()
        end, whole = offset_bytes, True
        for block in _blocks(piece):
            if block is None:
                whole = False
                break
            end += len(block)
            if end > file.length_bytes:
                raise UserError(f"files: {file.path} is longer than was declared.", "files")
            target.write(block)
            if digest is not None:
                digest.update(block)
        if digest and checksum and not (whole and digest.digest() == checksum[1]):
            raise ChecksumError("the piece differs from its checksum; send it again")
        target.flush()
        os.fsync(target.fileno())
        UploadFile.objects.filter(pk=file.pk).update(offset_bytes=end)
    Upload.objects.filter(pk=file.upload_id).update(touched_at=timezone.now())
    file.offset_bytes = end
    return end


def _blocks(piece: Readable) -> Iterator[bytes | None]:
    """The piece a megabyte at a time; None, once, where its connection broke."""
    while True:
        try:
            block = piece.read(_READ_BYTES)
        except UnreadablePostError:
            yield None
            return
        if not block:
            return
        yield block


def remove_file(file: UploadFile) -> None:
    """Take one file out of an upload that is still receiving."""
    with transaction.atomic():
        _require_receiving(Upload.objects.select_for_update().get(pk=file.upload_id))
        place = place_of(file)
        file.delete()
    place.unlink(missing_ok=True)


def submit(upload: Upload) -> None:
    """A complete upload goes to a worker, who verifies it; nothing reads its files before.

    Only what costs nothing is looked at here. Raises UserError where something is missing (the
    upload goes on receiving) or is no checkpoint at first sight (its bytes are deleted, the reason
    stays with the upload). Asked again, as by a sender who lost the answer, it changes nothing.
    """
    upload.refresh_from_db(fields=["state"])
    if upload.state in _SUBMITTED:
        return
    _require_receiving(upload)
    files = list(upload.files.all())
    if not files:
        raise UserError("files: none came; choose the checkpoint's folder.", "files")
    for file in files:
        if not file.complete:
            raise UserError(
                f"files: {file.path} is not here whole ({file.offset_bytes:,} of "
                f"{file.length_bytes:,} bytes); send the rest first.",
                "files",
            )
    try:
        _glance(files)
    except UserError as error:
        close(upload, Upload.State.REFUSED, reason=error.sentence)
        raise
    with transaction.atomic():
        taken = Upload.objects.filter(pk=upload.pk, state=Upload.State.RECEIVING)
        if taken.update(state=Upload.State.CHECKING):
            transaction.on_commit(celery.ask_to_take_in, robust=True)


def _require_distinct(paths: Sequence[str]) -> None:
    if len(paths) > settings.RETORT_UPLOAD_FILES:
        raise UserError(
            f"files: more than {settings.RETORT_UPLOAD_FILES} came; choose one checkpoint.", "files"
        )
    names = {path.lower() for path in paths}
    folders = {str(parent).lower() for path in paths for parent in PurePosixPath(path).parents}
    if len(names) < len(paths) or names & folders:
        raise UserError("files: two have the same name; choose one checkpoint.", "files")


def _require_model(names: Sequence[str]) -> None:
    """Refuse a folder whose names alone show that something is missing."""
    for refused in names:
        try:
            checkpoints.refuse_name(refused)
        except CheckpointError as error:
            raise UserError(f"files: {error}", "files") from None
    if "config.json" not in names:
        raise UserError("files: no config.json; give the folder the model was saved to.", "files")
    if not any(name.endswith(".safetensors") for name in names):
        raise UserError(
            "files: no *.safetensors file; save the model with safe serialization.", "files"
        )


def _glance(files: Sequence[UploadFile]) -> None:
    """Refuse what the names and the first bytes show not to be a checkpoint."""
    _require_model([file.path for file in files])
    weights = [file for file in files if file.path.endswith(".safetensors")]
    for file in weights:
        head = b""
        if file.length_bytes >= 8:
            with place_of(file).open("rb") as stream:
                head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if head else 0
        if not 2 <= length <= file.length_bytes - 8:
            raise UserError(
                f"files: {file.path}: torn or not a safetensors file (its header does not fit the "
                "file); copy it again.",
                "files",
            )
        if length > headers.MAX_HEADER_BYTES:
            raise UserError(
                f"files: {file.path}: its header is larger than "
                f"{headers.MAX_HEADER_BYTES // 10**6} MB, which no model needs; save the model "
                "again.",
                "files",
            )


def delete(upload: Upload) -> None:
    """Forget an upload and its bytes; a checkpoint that it became stays.

    A worker that looks at it notices, and drops it.
    """
    folder = folder_of(upload.pk)
    with transaction.atomic():
        upload.delete()
        transaction.on_commit(lambda: shutil.rmtree(folder, ignore_errors=True))


def used_bytes(owner: User) -> int:
    """What a person's checkpoints, unfinished uploads and chats take, at their full length."""
    arriving = UploadFile.objects.filter(upload__owner=owner, upload__state__in=LIVE_UPLOADS)
    stored = Checkpoint.objects.filter(owner=owner).exclude(path="")
    chats = KeptChats.objects.filter(owner=owner)
    return int(
        arriving.aggregate(total=Coalesce(Sum("length_bytes"), 0))["total"]
        + stored.aggregate(total=Coalesce(Sum("size_bytes"), 0))["total"]
        + chats.aggregate(total=Coalesce(Sum("size_bytes"), 0))["total"]
    )


def _require_receiving(upload: Upload) -> None:
    if upload.state != Upload.State.RECEIVING:
        raise _closed(upload)


def _closed(upload: Upload) -> UserError:
    return UserError(f"upload: is {upload.get_state_display()} and takes no more files.")


def require_quota(owner: User, length_bytes: int, what: str, field: str) -> None:
    """Raise UserError where so much more is more than the person may have.

    The person's row must be locked by the transaction that adds it.
    """
    quota, used = settings.RETORT_UPLOAD_QUOTA_BYTES, used_bytes(owner)
    if quota and used + length_bytes > quota:
        raise UserError(
            f"{what}: your quota is {quota:,} bytes, {used:,} are used, and this file has "
            f"{length_bytes:,}; delete checkpoints or ask the administrator.",
            field,
        )


def _require_room(owner: User, length_bytes: int) -> None:
    require_quota(owner, length_bytes, "files", "files")
    root = Path(settings.MEDIA_ROOT)
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if length_bytes > free:
        raise UserError(
            f"files: this file has {length_bytes:,} bytes, the server's disk {free:,} free; ask "
            "the administrator for room.",
            "files",
        )


def folder_of(upload: uuid.UUID) -> Path:
    """Where an upload's bytes lie."""
    return Path(settings.MEDIA_ROOT) / "uploads" / upload.hex


def place_of(file: UploadFile) -> Path:
    """Where a file's bytes lie; only ``offset_bytes`` of them count."""
    return folder_of(file.upload_id) / file.pk.hex


@contextmanager
def _locked(place: Path) -> Iterator[BinaryIO]:
    """The file, open for writing by one request at a time."""
    with os.fdopen(os.open(place, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as target:
        try:
            fcntl.flock(target, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError("another request is sending this file; wait for its end") from None
        yield target


def arranged(upload: Upload) -> Path:
    """A folder with the files under their names, as links: a failed check leaves them in place."""
    folder = folder_of(upload.pk) / "folder"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in upload.files.all():
        target = folder / safe_path(file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        place = place_of(file)
        if file.length_bytes == 0:
            target.touch()
        else:
            os.link(place, target)
    return folder


def close(upload: Upload, state: Upload.State, **values: object) -> None:
    """An upload's end: its bytes are wanted no more."""
    with transaction.atomic():
        Upload.objects.filter(pk=upload.pk).update(state=state, **values)
        folder = folder_of(upload.pk)
        transaction.on_commit(lambda: shutil.rmtree(folder, ignore_errors=True))
