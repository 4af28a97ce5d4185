"""Report bundles: a zip with a manifest of hashes and an Ed25519 signature over it.

A bundle is canonical: its entries are stored, in order of name, with one fixed date. So the bytes
of the archive follow from its files, and :func:`verify` packs them again and compares: a byte that
was changed anywhere, in a file or around it, is found. The files are untrusted until then.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from evaluator import signing
from evaluator.errors import InputError

SCHEMA = "retort/bundle/1"
MANIFEST, SIGNATURE, PUBLIC_KEY = "manifest.json", "manifest.sig", "public_key.pem"
MAX_FILES = 64
MAX_BYTES = 64 << 30  # of all files together
_MAX_MANIFEST_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_DATE = (1980, 1, 1, 0, 0, 0)
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Verified:
    """What a bundle that was found whole says of itself, and whose signature it carries."""

    manifest: Mapping[str, Any]
    fingerprint: str  # of the key that signed it
    trusted: bool  # the key was given by whoever asked, not taken from the bundle


def pack(folder: Path, target: Path, key: Ed25519PrivateKey, about: Mapping[str, Any]) -> None:
    """Write the files of ``folder`` as a signed bundle; ``about`` goes into the manifest.

    The folder gets the public key, the manifest and its signature. The target is written whole or
    not at all.
    """
    (folder / PUBLIC_KEY).write_bytes(signing.public_pem(key))
    files = {
        path.name: {"sha256": _sha256(path), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
    }
    manifest = {"schema": SCHEMA, **about, "files": files}
    body = (json.dumps(manifest, ensure_ascii=False, indent=1) + "\n").encode()
    (folder / MANIFEST).write_bytes(body)
    (folder / SIGNATURE).write_bytes(base64.b64encode(key.sign(body)) + b"\n")
    part = target.with_name(f".{target.name}.part")
    try:
        _archive(folder, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def verify(path: Path, key: Ed25519PublicKey | None = None) -> Verified:
    """Check a bundle: every file's hash, no file too many or too few, the signature, the archive.

    Without ``key`` the bundle's own public key is taken: then only that it is whole is shown, not
    who made it. Raises InputError with the first thing that is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="retort-verify-") as name:
        folder = Path(name) / "files"
        folder.mkdir()
        _unpack(path, folder)
        manifest, signer = _signed_manifest(path.name, folder, key)
        _check_files(path.name, folder, manifest)
        again = Path(name) / "again.zip"
        _archive(folder, again)
        if not _same_bytes(path, again):
            raise InputError(
                f"{path.name}: the archive around the files was changed; get the bundle again."
            )
        return Verified(manifest, signing.fingerprint(signer), key is not None)


def _unpack(path: Path, folder: Path) -> None:
    """Take the entries out, refusing names that are no plain names and sizes that are too large."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_FILES:
                raise InputError(f"{path.name}: more than {MAX_FILES} files; this is no bundle.")
            left = min(MAX_BYTES, path.stat().st_size)  # nothing is compressed, so it cannot grow
            for entry in entries:
                if not _NAME.fullmatch(entry.filename):
                    raise InputError(
                        f"{path.name}: {entry.filename[:80]!r} is no name that a bundle's file has."
                    )
                if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                    raise InputError(f"{path.name}: {entry.filename} is packed in another way.")
                left -= entry.file_size
                place = folder / entry.filename
                if left < 0 or place.exists():
                    raise InputError(f"{path.name}: {entry.filename} is in it twice or too large.")
                with archive.open(entry) as source, place.open("xb") as target:
                    shutil.copyfileobj(source, target, _CHUNK_BYTES)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        raise InputError(f"{path.name}: damaged, or not a zip archive ({error}).") from error
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read ({error.strerror or error}).") from error


def _signed_manifest(
    name: str, folder: Path, key: Ed25519PublicKey | None
) -> tuple[dict[str, Any], Ed25519PublicKey]:
    for needed in (MANIFEST, SIGNATURE, PUBLIC_KEY):
        place = folder / needed
        if not place.is_file():
            raise InputError(f"{name}: {needed} is missing; get the bundle again.")
        if place.stat().st_size > _MAX_MANIFEST_BYTES:
            raise InputError(f"{name}: {needed} is too large; this is no bundle.")
    body = (folder / MANIFEST).read_bytes()
    own = signing.read_public((folder / PUBLIC_KEY).read_bytes(), f"{name}: {PUBLIC_KEY}")
    try:
        signature = base64.b64decode((folder / SIGNATURE).read_bytes().strip(), validate=True)
    except ValueError as error:
        raise InputError(f"{name}: {SIGNATURE} is not base64 ({error}).") from error
    signer = key or own
    if not signing.is_signed(signer, signature, body):
        if key is not None and signing.is_signed(own, signature, body):
            raise InputError(
                f"{name}: signed by another key, {signing.fingerprint(own)}; ask its maker for the "
                "key, or do not trust it."
            )
        raise InputError(f"{name}: the signature is not the manifest's; it was changed.")
    try:
        manifest = json.loads(body)
        files = manifest["files"]
        known = manifest["schema"] == SCHEMA and all(
            isinstance(each["sha256"], str) for each in files.values()
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{name}: {MANIFEST} is no manifest ({error!r}).") from error
    if not known:
        raise InputError(f"{name}: {MANIFEST} is of another kind than {SCHEMA}.")
    return manifest, signer


def _check_files(name: str, folder: Path, manifest: Mapping[str, Any]) -> None:
    present = {path.name for path in folder.iterdir()} - {MANIFEST, SIGNATURE}
    listed = set(manifest["files"])
    for missing in sorted(listed - present):
        raise InputError(f"{name}: {missing[:80]!r} is missing; get the bundle again.")
    for extra in sorted(present - listed):
        raise InputError(f"{name}: {extra} is not in its manifest; somebody put it there.")
    for each in sorted(listed):
        if _sha256(folder / each) != manifest["files"][each]["sha256"]:
            raise InputError(f"{name}: {each} was changed after it was signed.")


def _archive(folder: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.iterdir()):
            entry = zipfile.ZipInfo(path.name, _DATE)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            entry.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(entry, "w") as sink:
                shutil.copyfileobj(source, sink, _CHUNK_BYTES)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _same_bytes(first: Path, second: Path) -> bool:
    return first.stat().st_size == second.stat().st_size and _sha256(first) == _sha256(second)
