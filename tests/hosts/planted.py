"""Secrets that are planted, and where they are looked for: files of any packing, and processes."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import re
import threading
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

import zstandard


def spellings(secret: str) -> set[bytes]:
    """A text as it is, and as addresses, JSON, Python and base64 (at any offset) write it."""
    raw = secret.encode()
    found = {raw, quote(secret, safe="").encode(), json.dumps(secret)[1:-1].encode()}
    found.add(repr(secret)[1:-1].encode())
    for offset in range(3):
        coded = base64.b64encode(bytes(offset) + raw).rstrip(b"=")
        # What the signs before and after share with their neighbours differs.
        middle = coded[-(-offset * 8 // 6) : -1 if (offset + len(raw)) % 3 else None]
        found |= {middle, middle.replace(b"+", b"-").replace(b"/", b"_")}
    return found


class Search:
    """Looks for each of the named secrets in bytes, packed or not."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        assert all(len(secret) >= 16 for secret in secrets.values()), "too short to be told apart"
        self._names = {each: name for name, text in secrets.items() for each in spellings(text)}
        alternatives = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, alternatives)))
        self.looked_at = 0  # bytes, after unpacking

    def names_in(self, data: bytes) -> set[str]:
        """The names of the secrets that are in it."""
        found = set()
        for each in unpacked(data):
            self.looked_at += len(each)
            found |= {self._names[match] for match in self._pattern.findall(each)}
        return found

    def in_files(self, folder: Path) -> dict[str, list[str]]:
        """Path → the names of the secrets in it, of every file below the folder that has any."""
        found = {}
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                names = self.names_in(path.read_bytes()) | self.names_in(os.fsencode(path.name))
                if names:
                    found[str(path.relative_to(folder))] = sorted(names)
        return found


def unpacked(data: bytes) -> Iterable[bytes]:
    """The bytes themselves, then what is packed in them (zip, gzip, zstd, Parquet, PDF)."""
    yield data
    if data[:2] == b"\x1f\x8b":
        yield from unpacked(gzip.decompress(data))
    elif data[:4] == b"\x28\xb5\x2f\xfd":
        with zstandard.ZstdDecompressor().stream_reader(
            io.BytesIO(data), read_across_frames=True
        ) as reader:
            yield from unpacked(reader.read())
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield from unpacked(archive.read(name))
    elif data[:4] == b"PAR1":
        import pyarrow.parquet

        yield repr(pyarrow.parquet.read_table(io.BytesIO(data)).to_pydict()).encode()


class Watch:
    """Looks at every process that descends from this one, again and again, until it is closed."""

    SECONDS = 0.02  # between two looks

    def __init__(self) -> None:
        self._over = threading.Event()
        self._ours: set[tuple[int, str]] = set()  # also those whose parents have ended
        self._last: dict[tuple[int, str], tuple[bytes, bytes]] = {}
        self._seen: set[tuple[str, bytes, bytes]] = set()  # (kind, command line, environment)
        self._own = Path("/proc/self/cmdline").read_bytes()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def told(self, search: Search) -> dict[str, list[str]]:
        """Kind of process → the secrets in its environment."""
        found: dict[str, set[str]] = {}
        for kind, _, environment in self._seen:
            found.setdefault(kind, set()).update(search.names_in(environment))
        return {kind: sorted(names) for kind, names in found.items()}

    def shown(self, search: Search) -> list[list[str]]:
        """(Kind of process, secret) for those on command lines."""
        found = {(kind, name) for kind, line, _ in self._seen for name in search.names_in(line)}
        return sorted(map(list, found))

    def close(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self.SECONDS):
            self._look()

    def _look(self) -> None:
        parents = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                except OSError:  # it has ended
                    continue
                parents[int(folder.name)] = (int(fields[1]), fields[19])
        live = {(pid, began) for pid, (_, began) in parents.items()}
        self._ours &= live
        pids = {pid for pid, _ in self._ours} | {os.getpid()}
        grown = True
        while grown:
            new = {pid for pid, (parent, _) in parents.items() if parent in pids} - pids
            grown = bool(new)
            pids |= new
        for pid in pids - {os.getpid()}:
            identity = (pid, parents[pid][1])
            self._ours.add(identity)
            self._look_at(identity)

    def _look_at(self, identity: tuple[int, str]) -> None:
        folder = Path("/proc") / str(identity[0])
        try:
            line = (folder / "cmdline").read_bytes()
            environment = (folder / "environ").read_bytes()
            again = (folder / "cmdline").read_bytes()
        except OSError:
            return
        # Between fork and exec it is its parent still; and what changed meanwhile is looked at
        # the next time.
        if (
            line in (b"", self._own)
            or line != again
            or self._last.get(identity) == (line, environment)
        ):
            return
        self._last[identity] = (line, environment)
        kind = kind_of(line.decode(errors="replace").split("\0")[:-1], environment)
        self._seen.add((kind, line, environment))


# Words of a command line → the kind of process, the first that fits.
_KINDS = (
    ("report_pdf", "pdf"), ("import weasyprint", "pdf"), ("distiller verify", "verifying"),
    ("evaluator.graders.worker", "grader"), ("granian", "web"), ("manage.py up", "up"),
    ("manage.py desk", "desk"), ("manage.py judge_role", "judge_role"),
    ("manage.py backup", "backup"), ("pg_dump", "pg_dump"), ("pg_restore", "pg_restore"),
    ("import encodings", "verifying"), ("celery@judge/", "judge"), ("celery@web/", "worker"),
    ("postgres", "server"), ("pg_ctl", "server"), ("redis-server", "server"),
    ("moto_server", "server"),
    ("launcher", "sandbox"), ("bwrap", "sandbox"), ("/box", "sandbox"),
)  # fmt: skip


def kind_of(arguments: list[str], environment: bytes) -> str:
    """What a process is for; its own command line where that is unknown."""
    line = " ".join(arguments)
    if arguments[1:2] == ["-m"] and "stage" in arguments:
        try:
            return "stage:" + str(json.loads(Path(arguments[-1]).read_text())["kind"])
        except OSError:
            return "stage:gone"
    for words, kind in _KINDS:
        if words in line:
            return kind
    if line.endswith("-m workers"):
        return "judge" if b"RETORT_QUEUES=judge\0" in environment else "worker"
    if "multiprocessing" in line:
        return "web"
    program = Path(arguments[0]).name
    helpers = ("cc", "gcc", "g++", "cc1", "as", "ld", "collect2", "ldconfig", "ldconfig.real")
    return "helper" if program in helpers else line
