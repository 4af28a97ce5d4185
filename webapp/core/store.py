"""The file store: a disk that all hosts share, or a bucket that each host keeps copies of.

Paths in the database are relative to the store. With a disk, ``fetch`` and ``publish`` do nothing
but tell where a file lies. With a bucket (``RETORT_S3_BUCKET``) ``publish`` uploads what this host
made, whole, before a row refers to it, and ``fetch`` brings what another host made; copies lie
below ``MEDIA_ROOT`` under the same relative paths, so that every path in a child's spec is absolute
on each host. A folder is there when its manifest is, which is uploaded last.

What is in the store never changes; the few files that do are given and taken by ``put`` and
``get``.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files.storage import default_storage

from evaluator.errors import StoreError
from webapp.core.cache import Cache
from webapp.core.errors import UserError
from webapp.core.hosts import host_name

MANIFEST = ".manifest.json"  # beside a folder's name: its files with sizes and hashes
HASH = "sha256"  # the metadata of an object
_CHUNK = 1 << 20  # bytes

logger = logging.getLogger(__name__)

_is_wanted: ContextVar[Callable[[], bool]] = ContextVar("is_wanted", default=lambda: True)


class UnwantedError(Exception):
    """What was being brought is wanted no more: a run was cancelled, or a process is to end."""


@contextmanager
def as_long_as(is_wanted: Callable[[], bool]) -> Iterator[None]:
    """Give up what is brought meanwhile, with UnwantedError, as soon as it is not wanted."""
    token = _is_wanted.set(is_wanted)
    try:
        yield
    finally:
        _is_wanted.reset(token)


def require_wanted() -> None:
    """Between two pieces of what is brought. Raises UnwantedError."""
    if not _is_wanted.get()():
        raise UnwantedError


def is_remote() -> bool:
    """Whether the files are in a bucket."""
    return bool(settings.RETORT_S3_BUCKET)


def place_name() -> str:
    """Whose files these are: this host's, by its name; blank where all hosts share them."""
    return host_name() if is_remote() else ""


def path_of(relative: str) -> Path:
    """Where a file or folder of the store lies on this host, once it is here."""
    return Path(settings.MEDIA_ROOT) / relative


def relative_of(path: Path) -> str:
    """The store's name of a path below it."""
    return path.relative_to(settings.MEDIA_ROOT).as_posix()


def fetch(relative: str) -> Path:
    """Where a file or folder lies, brought here first where need be; it may also be nowhere.

    Raises StoreError where another try may help, UserError for an object that is not what was
    stored.
    """
    path = path_of(relative)
    if not is_remote():
        return path
    with _reported(relative):
        cache().use(relative)
        if path.is_file():
            return path
        manifest = _manifest(relative)
        if manifest is None:
            _fetch_file(relative)
            return path
        for name, entry in manifest.items():
            inside = f"{relative}/{name}"
            cache().use(inside)
            if not path_of(inside).is_file():
                _fetch_file(inside, entry[HASH])
    return path


def holds(relative: str) -> bool:
    """Whether a file is in the store, on this host or not. Raises StoreError or UserError."""
    if path_of(relative).is_file():
        return True
    if not is_remote():
        return False
    with _reported(relative):
        return _hash(relative) is not None


def publish(relative: str, source: Path | None = None) -> None:
    """Put a file or folder of this host (``source``, where it lies elsewhere yet) into the bucket.

    What is there already is not sent again. Raises StoreError.
    """
    if not is_remote():
        return
    path = source or path_of(relative)
    with _reported(relative):
        if path.is_file():
            _send(path, relative)
            return
        entries = {}
        for each in sorted(path.rglob("*")):
            if each.is_file():
                name = each.relative_to(path).as_posix()
                entries[name] = {"bytes": each.stat().st_size}
        there = _manifest(relative)
        if there is not None and {n: e["bytes"] for n, e in there.items()} == {
            n: e["bytes"] for n, e in entries.items()
        }:
            return
        for name, entry in entries.items():
            entry[HASH] = _send(path / name, f"{relative}/{name}")  # type: ignore[assignment]
        _put(relative + MANIFEST, json.dumps(entries).encode())


def put(relative: str, data: bytes) -> None:
    """Write a small object that may change. Raises StoreError."""
    with _reported(relative):
        _put(relative, data)


def get(relative: str) -> bytes | None:
    """Read a small object that may change; None where there is none. Raises StoreError."""
    with _reported(relative):
        return _get(relative)


def remove(relative: str) -> None:
    """Take a file or folder out of the bucket; copies elsewhere go when their room is wanted."""
    if not is_remote():
        return
    with _reported(relative):
        # The manifest first: half a folder is none.
        for name in (relative + MANIFEST, relative):
            _bucket().Object(name).delete()
        _bucket().objects.filter(Prefix=f"{relative}/").delete()


def names() -> Iterator[str]:
    """Every file of the bucket. Raises StoreError."""
    with _reported("the bucket"):
        for each in _bucket().objects.all():
            if not each.key.endswith(MANIFEST):
                yield each.key


def entries(folder: str, depth: int = 1) -> Iterator[str]:
    """Files and folders of the bucket that lie ``depth`` levels below a folder; some come twice.

    Directly below it the bucket groups what lies deeper, so that one request tells of a thousand
    entries, however many files they have. Raises StoreError or UserError.
    """
    for name in _listed(folder, grouped=depth == 1):
        parts = name.removesuffix(MANIFEST).split("/")[: 1 + depth]
        if len(parts) > depth and parts[-1]:  # else a console's mark of an empty folder, or astray
            yield "/".join(parts)


def folders(folder: str) -> Iterator[str]:
    """Folders directly below one that are whole. Raises StoreError or UserError."""
    for name in _listed(folder, grouped=True):
        if name.endswith(MANIFEST):
            yield name.removesuffix(MANIFEST)


def _listed(folder: str, *, grouped: bool) -> Iterator[str]:
    """Names of the objects below a folder; grouped, deeper ones come as ``name/``, once."""
    more = {"Delimiter": "/"} if grouped else {}
    with _reported(folder):
        listing = _bucket().meta.client.get_paginator("list_objects_v2")
        for page in listing.paginate(Bucket=_bucket().name, Prefix=f"{folder}/", **more):
            yield from (each["Prefix"] for each in page.get("CommonPrefixes", ()))
            yield from (each["Key"] for each in page.get("Contents", ()))


def size_of(relative: str) -> int:
    """Bytes of a file or folder of the bucket. Raises StoreError or UserError."""
    with _reported(relative):
        below = _bucket().objects.filter(Prefix=relative)
        return sum(
            each.size
            for each in below
            if each.key == relative or each.key.startswith((f"{relative}/", relative + MANIFEST))
        )


# --- objects


def _send(path: Path, relative: str) -> str:
    """Upload a file under its hash; returns it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if _hash(relative) != digest:
        _bucket().upload_file(str(path), relative, ExtraArgs={"Metadata": {HASH: digest}})
    if path == path_of(relative):
        cache().adopt(relative, digest)
    return digest


def _fetch_file(relative: str, digest: str | None = None) -> None:
    """Download a file; it appears under its name only when its hash is the one it was sent with."""
    digest = digest or _hash(relative)
    if digest is None:
        return  # nowhere: who asked says what is missing
    if cache().link(digest, relative):
        return
    with cache().incoming() as part:
        actual = hashlib.sha256()
        body = _bucket().Object(relative).get()["Body"]
        with part.open("wb") as file:
            while chunk := body.read(_CHUNK):
                require_wanted()
                actual.update(chunk)
                file.write(chunk)
        if actual.hexdigest() != digest:
            raise UserError(
                f"store: the object {relative} is not what was stored (its hash differs); restore "
                "it from a backup."
            )
        cache().keep(part, digest, relative)


def _hash(relative: str) -> str | None:
    from botocore.exceptions import ClientError

    try:
        return str(_bucket().Object(relative).metadata[HASH])
    except KeyError:
        raise UserError(
            f"store: the object {relative} was not put there by Retort; take it out of the bucket."
        ) from None
    except ClientError as error:
        if _is_missing(error):
            return None
        raise


def _manifest(relative: str) -> dict[str, dict[str, Any]] | None:
    found = _get(relative + MANIFEST)
    return None if found is None else json.loads(found)


def _put(relative: str, data: bytes) -> None:
    digest = hashlib.sha256(data).hexdigest()
    _bucket().put_object(Key=relative, Body=data, Metadata={HASH: digest})


def _get(relative: str) -> bytes | None:
    from botocore.exceptions import ClientError

    try:
        return bytes(_bucket().Object(relative).get()["Body"].read())
    except ClientError as error:
        if _is_missing(error):
            return None
        raise


def _is_missing(error: Any) -> bool:
    return error.response.get("Error", {}).get("Code") in ("404", "NoSuchKey", "NotFound")


def _bucket() -> Any:
    return default_storage.bucket  # type: ignore[attr-defined]


@contextmanager
def _reported(relative: str) -> Iterator[None]:
    """Turn the client's errors into ours, which say whether another try may help."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError:
        raise UserError("store: no credentials; set AWS_ACCESS_KEY_ID and its secret.") from None
    except (BotoCoreError, Boto3Error, ClientError, OSError) as error:
        answer = error.__context__ if isinstance(error, Boto3Error) else error
        if isinstance(answer, ClientError) and _is_for_good(answer):
            raise UserError(
                f"store: {relative}: {answer}; look at the bucket's name and rights."
            ) from error
        logger.warning("the store cannot be reached", exc_info=True)
        said = f"{type(error).__name__}: {error}"[:300]
        raise StoreError(f"store: {relative} was not transferred ({said}).") from error


def _is_for_good(error: Any) -> bool:
    """Whether the server would refuse the same again."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return 400 <= status < 500 and status not in (408, 429)


@lru_cache
def _cache(root: Path, most: int) -> Cache:
    return Cache(root, most)


def cache() -> Cache:
    """The copies that this host has."""
    return _cache(Path(settings.MEDIA_ROOT), settings.RETORT_CACHE_BYTES)
