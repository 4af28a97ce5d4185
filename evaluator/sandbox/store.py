"""The judge's private folder on disk: the launcher, compiled programs, files for the sandboxes.

It lies in the system's folder for temporary files, because the sandbox's own user must be able to
reach a program in it, which is never so in a home folder of mode 700. Others can pass through, but
not list it; names are SHA-256 hashes; nobody but the judge's user can write.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from evaluator.sandbox.errors import SandboxUnavailableError

_MAX_PROGRAMS = 2000
_MAX_BYTES = 2 << 30
_WORK = "work"  # begins the names of what lies here while a judge works: work-<process>-…
# A judge in another container, whose processes are not seen here, may share the folder; its work
# takes less. Only after that is a process that cannot be found taken for dead.
_ORPHAN_SECONDS = 3600.0


def private_folder() -> Path:
    """The folder, made if need be; refuses one that belongs to somebody else."""
    folder = Path(tempfile.gettempdir()) / f"retort-judge-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o711)
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o022:
        raise SandboxUnavailableError(
            f"sandbox: {folder} is not a folder that only this user can write; remove it."
        )
    folder.chmod(0o711)
    return folder


def digest(*parts: str | bytes) -> str:
    """SHA-256 of the parts, in 64 hex digits."""
    hashed = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        hashed.update(len(data).to_bytes(8, "little") + data)
    return hashed.hexdigest()


def keep(name: str, content: bytes, *, executable: bool = False) -> Path:
    """Write ``content`` to the folder under ``name``, whole or not at all, readable by everyone."""
    folder = private_folder()
    path = folder / name
    if touch(path):
        return path
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=_work_prefix())
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o555 if executable else 0o444)
        Path(temporary).rename(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def touch(path: Path) -> bool:
    """Whether the file is there; it then counts as used now."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


@contextlib.contextmanager
def shared(contents: Mapping[str, bytes]) -> Iterator[dict[str, Path]]:
    """Files, by their names inside, that the sandbox's user can read while the context lasts."""
    with tempfile.TemporaryDirectory(dir=private_folder(), prefix=_work_prefix()) as name:
        folder = Path(name)
        folder.chmod(0o711)
        files = {}
        for inside, content in contents.items():
            files[inside] = folder / inside
            files[inside].write_bytes(content)
            files[inside].chmod(0o444)
        yield files


def trim(max_programs: int = _MAX_PROGRAMS, max_bytes: int = _MAX_BYTES) -> None:
    """Remove the least recently used programs beyond the folder's size, and what a judge that was
    killed left of its work.
    """
    programs: list[tuple[float, int, str]] = []
    with os.scandir(private_folder()) as entries:  # Path.glob and stat take three times as long
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # another judge trims too
                if entry.name.startswith("program-"):
                    info = entry.stat()
                    programs.append((info.st_mtime, info.st_size, entry.path))
                elif entry.name.startswith(f"{_WORK}-"):
                    _remove_orphan(entry)
    total = 0
    for place, (_, size, path) in enumerate(sorted(programs, reverse=True)):
        total += size
        if place >= max_programs or total > max_bytes:
            Path(path).unlink(missing_ok=True)


def _work_prefix() -> str:
    return f"{_WORK}-{os.getpid()}-"


def _remove_orphan(entry: os.DirEntry[str]) -> None:
    """Remove tests' files, or half a program, of a judge that was killed long enough ago."""
    old = time.time() - entry.stat().st_mtime > _ORPHAN_SECONDS
    if not old or Path("/proc", entry.name.split("-")[1]).exists():
        return
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path)
    else:
        Path(entry.path).unlink()
