"""Fetching an upload's files: from the hub at a pinned commit, or from a folder of the server.

The files are rows of the upload as if a browser had declared them, so that quota, progress and
names are one matter. A fetch that was broken off goes on where the files end.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from django.conf import settings

from distiller.verifying import AbandonedError
from webapp.checkpoints import uploads
from webapp.checkpoints.hub import Hub, HubFile, HubUnreachableError
from webapp.checkpoints.models import Upload, UploadFile
from webapp.checkpoints.services import is_left_out, told_left_out
from webapp.core.errors import UserError

_PIECE_BYTES = 32 * 1024 * 1024  # between two steps of the progress
_HASH_BYTES = 1 << 20
_NO_LINK = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class TransientError(Exception):
    """The fetch broke off; another try goes on with it."""


def from_hub(upload: Upload, wanted: Callable[[], bool]) -> None:
    """Fetch what the upload's repository holds of a checkpoint, each file held to its hash.

    Raises UserError for what no other try would mend, TransientError for the rest, AbandonedError
    once ``wanted`` says no.
    """
    public_only = not settings.RETORT_ALLOW_PRIVATE_ENDPOINTS
    try:
        with Hub(settings.RETORT_HUB, public_only=public_only) as hub:
            listing = hub.list(upload.origin, upload.revision)
            if listing.commit != upload.revision:
                # A branch moves: from here on it is this commit, whatever a later try finds.
                Upload.objects.filter(pk=upload.pk).update(revision=listing.commit)
                upload.revision = listing.commit
            _tell_left_out(upload, listing.left_out)
            rows = [
                (uploads.declare(upload, each.path, each.size_bytes), each)
                for each in listing.files
            ]
            for row, each in rows:
                UploadFile.objects.filter(pk=row.pk).update(digest=each.digest)
            for row, each in rows:
                _from_hub(hub, upload, row, each, wanted)
    except HubUnreachableError as error:
        raise TransientError(str(error)) from None


def _from_hub(
    hub: Hub, upload: Upload, row: UploadFile, file: HubFile, wanted: Callable[[], bool]
) -> None:
    row.upload = upload
    if not row.complete:
        with hub.opened(upload.origin, upload.revision, file, row.offset_bytes) as stream:
            _fill(row, stream, wanted)
    if row.length_bytes and _digest(uploads.place_of(row), file.digest) != file.digest:
        UploadFile.objects.filter(pk=row.pk).update(offset_bytes=0)
        raise TransientError(f"{file.path} is not what the hub says it is")


def checked_folder(folder: str) -> str:
    """A folder below RETORT_IMPORT_ROOT as its plain relative path; raises UserError."""
    if not settings.RETORT_IMPORT_ROOT:
        raise UserError(
            "folder: this server takes none; set RETORT_IMPORT_ROOT to the folder they lie in.",
            "folder",
        )
    path = PurePosixPath(folder.strip())
    root = PurePosixPath(settings.RETORT_IMPORT_ROOT)
    if path.is_absolute() and path.is_relative_to(root):
        path = path.relative_to(root)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\0" in folder:
        raise UserError(f"folder: give a path below {root}.", "folder")
    with _opened_folder(str(path)):
        return str(path)


def from_folder(upload: Upload, wanted: Callable[[], bool]) -> None:
    """Copy the upload's folder, links refused, and hold the copy to the hash of what was read.

    Raises as :func:`from_hub` does.
    """
    with _opened_folder(upload.origin) as top:
        names: list[str] = []
        left_out: list[str] = []
        for place, folders, files, _ in os.fwalk(".", dir_fd=top, follow_symlinks=False):
            for name in (str(PurePosixPath(place) / name) for name in files):
                (left_out if is_left_out(name) else names).append(name)
            hidden = [name for name in folders if is_left_out(name)]
            left_out += [f"{PurePosixPath(place) / name}/" for name in hidden]
            folders[:] = sorted({*folders} - {*hidden})
            if len(names) + len(folders) > settings.RETORT_UPLOAD_FILES:
                raise UserError("folder: has too many files; give one checkpoint's.", "folder")
        _tell_left_out(upload, left_out)
        sizes = {}
        for name in sorted(names):
            with _opened_file(name, top) as number:
                sizes[name] = os.fstat(number).st_size
        rows = [uploads.declare(upload, name, size) for name, size in sizes.items()]
        for row in rows:
            row.upload = upload
            with _opened_file(row.path, top) as number:
                _copy(row, number, wanted)


def _tell_left_out(upload: Upload, names: Iterable[str]) -> None:
    upload.left_out = told_left_out(names)
    Upload.objects.filter(pk=upload.pk).update(left_out=upload.left_out)


def _copy(row: UploadFile, number: int, wanted: Callable[[], bool]) -> None:
    """Copy one file from its beginning: it may have changed since an earlier try."""
    UploadFile.objects.filter(pk=row.pk).update(offset_bytes=0)
    row.offset_bytes = 0
    source = _Hashing(number)
    _fill(row, source, wanted)
    digest = f"sha256:{source.digest.hexdigest()}"
    if row.length_bytes and _digest(uploads.place_of(row), digest) != digest:
        raise TransientError(f"{row.path} arrived changed")
    UploadFile.objects.filter(pk=row.pk).update(digest=digest)


class _Hashing:
    """A file's bytes, hashed as they are read."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.digest = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        block = os.read(self._number, size)
        self.digest.update(block)
        return block


class _Piece:
    """The next so many bytes of a stream; fewer at its end."""

    def __init__(self, stream: uploads.Readable, size: int) -> None:
        self._stream = stream
        self._left = size
        self.ended = False

    def read(self, size: int, /) -> bytes:
        block = self._stream.read(min(size, self._left)) if self._left else b""
        self.ended = not block and self._left > 0
        self._left -= len(block)
        return block


def _fill(row: UploadFile, stream: uploads.Readable, wanted: Callable[[], bool]) -> None:
    """Append the stream, piece by piece, until the file is whole."""
    while not row.complete:
        if not wanted():
            raise AbandonedError("the worker stops")
        piece = _Piece(stream, min(_PIECE_BYTES, row.length_bytes - row.offset_bytes))
        uploads.append(row, row.offset_bytes, piece, state=Upload.State.FETCHING)
        if piece.ended:
            raise TransientError(
                f"{row.path} ended after {row.offset_bytes:,} of {row.length_bytes:,} bytes"
            )


def _digest(place: Path, like: str) -> str:
    """The file's hash in the form of ``like``."""
    kind = like.partition(":")[0]
    digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(usedforsecurity=False)
    if kind == "git":  # how git names a file's content
        digest.update(f"blob {place.stat().st_size}\0".encode())
    with place.open("rb") as file:
        while block := file.read(_HASH_BYTES):
            digest.update(block)
    return f"{kind}:{digest.hexdigest()}"


@contextmanager
def _opened_folder(relative: str) -> Iterator[int]:
    """The folder below the import root, opened step by step so that no link is followed."""
    number = os.open(settings.RETORT_IMPORT_ROOT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in PurePosixPath(relative).parts:
            try:
                inner = os.open(part, _NO_LINK | os.O_DIRECTORY, dir_fd=number)
            except OSError:
                raise UserError(
                    f"folder: {relative[:200]} is no folder below {settings.RETORT_IMPORT_ROOT} "
                    "(links are not followed).",
                    "folder",
                ) from None
            os.close(number)
            number = inner
        yield number
    finally:
        os.close(number)


@contextmanager
def _opened_file(relative: str, top: int) -> Iterator[int]:
    """A regular file below the opened folder, no link on the way."""
    opened: list[int] = []
    try:
        _open_all(relative, top, opened)
        yield opened[-1]
    finally:
        for number in reversed(opened):
            os.close(number)


def _open_all(relative: str, top: int, opened: list[int]) -> None:
    *folders, name = PurePosixPath(relative).parts
    try:
        for part in folders:
            place = opened[-1] if opened else top
            opened.append(os.open(part, _NO_LINK | os.O_DIRECTORY, dir_fd=place))
        place = opened[-1] if opened else top
        opened.append(os.open(name, _NO_LINK | os.O_NONBLOCK, dir_fd=place))
    except OSError as error:
        raise UserError(
            f"folder: {relative[:200]} is a link or cannot be read; give plain files.", "folder"
        ) from error
    if not stat.S_ISREG(os.fstat(opened[-1]).st_mode):
        raise UserError(f"folder: {relative[:200]} is not a regular file; remove it.", "folder")
