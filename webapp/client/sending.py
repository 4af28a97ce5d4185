"""Sending a checkpoint's folder in pieces, by the tus protocol; what came before is not sent again.

https://tus.io/protocols/resumable-upload, version 1.0.0, with its checksum extension.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from webapp.client.api import Retort
from webapp.client.errors import ClientError
from webapp.client.models import UploadDetail, UploadFile

PIECE_BYTES = 8 << 20
_VERSION = {"Tus-Resumable": "1.0.0"}
_TRIES = 5  # of a piece that did not arrive whole
_WAIT_SECONDS = 0.5  # before the next try, each time longer

Told = Callable[[int], None]  # bytes that have arrived since it was told last


def files_of(folder: Path) -> dict[str, int]:
    """Path below the folder → bytes of what a checkpoint is loaded from. Raises ClientError.

    What begins with a dot is git's or an editor's and stays here.
    """
    if not folder.is_dir():
        raise ClientError(f"folder: {folder} is no folder; give a checkpoint's folder.")
    found = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    if "config.json" not in found:
        raise ClientError(f"folder: {folder} holds no config.json; give a checkpoint's folder.")
    return found


def begin_or_go_on(
    retort: Retort, name: str, folder: Path, files: dict[str, int], project: int | None = None
) -> UploadDetail:
    """The upload of this name that is under way, where it is of the same files, or a new one.

    A file that was written since the upload began is another one, whatever its length: two steps of
    one training have files of the same names and lengths. Raises ClientError.
    """
    for each in retort.uploads():
        if each.name == name and each.state == "receiving":
            under_way = retort.upload(each.id)
            if {file.path: file.length_bytes for file in under_way.files} == files:
                _refuse_changed(under_way, folder)
                return under_way
            raise ClientError(
                f"name: an upload of {name!r} with other files is under way; add --fresh to "
                "discard it, or choose another name."
            )
    return retort.begin_upload(name, files, project)


def _refuse_changed(upload: UploadDetail, folder: Path) -> None:
    began = upload.created_at.timestamp()
    for file in upload.files:
        if file.offset_bytes and (folder / file.path).stat().st_mtime > began:
            raise ClientError(
                f"files: {file.path} was changed since its upload began; add --fresh to discard "
                "what came before."
            )


def send(retort: Retort, upload: UploadDetail, folder: Path, arrived: Told) -> None:
    """Send what is missing of every file. Raises ClientError; called again, it goes on."""
    for file in upload.files:
        _send_file(retort, file, folder / file.path, arrived)


def _send_file(retort: Retort, file: UploadFile, path: Path, arrived: Told) -> None:
    offset = _offset(retort, file)
    arrived(offset)
    tries = 0
    try:
        with path.open("rb") as source:
            while offset < file.length_bytes:
                source.seek(offset)
                piece = source.read(min(PIECE_BYTES, file.length_bytes - offset))
                if not piece:
                    raise ClientError(f"files: {file.path} became shorter meanwhile; begin again.")
                try:
                    end = _send_piece(retort, file, offset, piece)
                    tries = 0
                except ClientError as error:
                    # Lost on the way, or another try of ours is still being written.
                    tries += 1
                    if error.status not in (None, 409, 423, 460) or tries >= _TRIES:
                        raise
                    time.sleep(_WAIT_SECONDS * tries)
                    end = _offset(retort, file)
                arrived(end - offset)
                offset = end
    except OSError as error:
        raise ClientError(f"files: {path} cannot be read ({error.strerror}).") from error


def _offset(retort: Retort, file: UploadFile) -> int:
    """How much of it is there."""
    return int(retort.request("HEAD", file.url, headers=_VERSION).headers["Upload-Offset"])


def _send_piece(retort: Retort, file: UploadFile, offset: int, piece: bytes) -> int:
    digest = base64.b64encode(hashlib.sha256(piece).digest()).decode()
    headers = {
        **_VERSION, "Upload-Offset": str(offset), "Upload-Checksum": f"sha256 {digest}",
        "Content-Type": "application/offset+octet-stream",
    }  # fmt: skip
    answer = retort.request("PATCH", file.url, headers=headers, content=piece)
    return int(answer.headers["Upload-Offset"])
