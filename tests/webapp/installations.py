"""Installations beside the test's own: a database of its own in the embedded server, own files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from django.db import connection

from webapp.core.backup import _program

ROOT = Path(__file__).resolve().parents[2]


class Installation:
    """A database of its own in the embedded server, files of its own, the same keys."""

    def __init__(self, database: str, files: Path, environment: dict[str, str]) -> None:
        self.files = files
        host, user = connection.settings_dict["HOST"], connection.settings_dict["USER"]
        self.environment = environment | {
            "DATABASE_URL": f"postgres:///{database}?host={host}&user={user}",
            "RETORT_FILES": str(files), "SECRET_KEY": "the key of both",
        }  # fmt: skip
        self.connect = ["--host", host, "--username", user, "--dbname", database]

    def manage(self, *arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
        return self.python("manage.py", *arguments, **changed)

    def python(self, *arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False,
            env=self.environment | changed,
        )  # fmt: skip

    def schema(self) -> str:
        """The database's whole schema as SQL."""
        return self._dump("--schema-only")

    def rows(self) -> list[str]:
        """All data, as sorted INSERT statements."""
        lines = self._dump("--data-only", "--inserts").splitlines()
        return sorted(line for line in lines if line.startswith("INSERT"))

    def _dump(self, *options: str) -> str:
        command = [_program("pg_dump"), *self.connect, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        # A line at each end holds a random word.
        return "\n".join(x for x in done.stdout.splitlines() if not x.startswith("\\"))

    def tree(self) -> dict[str, bytes]:
        return {
            path.relative_to(self.files).as_posix(): path.read_bytes()
            for path in self.files.rglob("*")
            if path.is_file()
        }
