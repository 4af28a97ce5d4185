"""Ed25519 keys that sign report bundles: one per installation, made once, kept at mode 600."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from evaluator.errors import InputError

VARIABLE = "RETORT_SIGNING_KEY"
_RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def default_path(var: Path | None = None) -> Path:
    """Where this installation's key lies: RETORT_SIGNING_KEY, else under ``var`` (RETORT_VAR)."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    known = var or os.environ.get("RETORT_VAR") or Path(__file__).resolve().parents[1] / "var"
    return Path(known) / "signing_key.pem"


def private_key(path: Path) -> Ed25519PrivateKey:
    """The key in the PEM file ``path``, made first where there is none.

    Linking a finished file into place lets two processes that start together agree on one key.
    Raises InputError for a file that holds another kind of key, or that others may read.
    """
    if not path.exists():
        _make(path)
    if path.stat().st_mode & 0o077:
        raise InputError(f"signing key: others may read {path}; run chmod 600 on it.")
    try:
        found = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, OSError) as error:
        raise InputError(f"signing key: {path} cannot be used ({error}).") from error
    if not isinstance(found, Ed25519PrivateKey):
        raise InputError(f"signing key: {path} is no Ed25519 key; name one that is.")
    return found


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    part = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(part)
    finally:
        part.unlink()


def public_pem(key: Ed25519PrivateKey) -> bytes:
    """The public half, as PEM."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def read_public(data: bytes, where: str) -> Ed25519PublicKey:
    """A public key from PEM; ``where`` begins the InputError for anything else."""
    try:
        found = serialization.load_pem_public_key(data)
    except ValueError as error:
        raise InputError(f"{where}: not a public key in PEM form ({error}).") from error
    if not isinstance(found, Ed25519PublicKey):
        raise InputError(f"{where}: not an Ed25519 key.")
    return found


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of the raw public key, 64 hex digits: what two people read to each other."""
    return hashlib.sha256(key.public_bytes(*_RAW)).hexdigest()


def is_signed(key: Ed25519PublicKey, signature: bytes, data: bytes) -> bool:
    """Whether ``signature`` is the key's over ``data``."""
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True
