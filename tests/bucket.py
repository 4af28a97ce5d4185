"""Fixtures: moto's S3 server, a line to it that can break, hosts with folders of their own."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import storages

from tests.hosts.network import Network
from tests.hosts.servers import Bucket

Host = Callable[[str], Path]


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    server = Bucket(tmp_path_factory.mktemp("moto") / "server", Network(isolated=False))
    yield server
    server.kill()


class Line:
    """A way to the server that can be made to break off after so many bytes of an answer."""

    def __init__(self, port: int) -> None:
        self.limit: int | None = None
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._carry, args=(near,)))
            self._threads[-1].start()

    def _carry(self, near: socket.socket) -> None:
        # A side that hangs up in the middle, as who wants no more does, ends the line for both.
        with (
            near,
            socket.create_connection(("127.0.0.1", self._port)) as far,
            contextlib.suppress(ConnectionError),
        ):
            self._pass_on(near, far)

    def _pass_on(self, near: socket.socket, far: socket.socket) -> None:
        passed = 0
        while True:
            for source in select.select([near, far], [], [])[0]:
                data = source.recv(65536)
                if source is far and self.limit is not None:
                    data = data[: max(self.limit - passed, 0)]
                if not data:
                    return
                passed += len(data) if source is far else 0
                (near if source is far else far).sendall(data)


@pytest.fixture
def line(bucket: Bucket) -> Iterator[Line]:
    made = Line(bucket.port)
    yield made
    made.close()


@pytest.fixture
def host(
    bucket: Bucket, line: Line, settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Host]:
    """Be the host of that name: its own folder, the same bucket."""
    from botocore.config import Config

    for name, value in bucket.keys.items():
        monkeypatch.setenv(name, value)
    settings.RETORT_S3_BUCKET = bucket.name
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "storages.backends.s3.S3Storage",
            "OPTIONS": {
                "bucket_name": bucket.name, "region_name": "us-east-1",
                "endpoint_url": f"http://127.0.0.1:{line.port}",
                "client_config": Config(retries={"total_max_attempts": 1}, read_timeout=20),
            },
        },
    }  # fmt: skip

    def be(name: str) -> Path:
        settings.MEDIA_ROOT = tmp_path / name
        settings.RETORT_HOST = name
        return tmp_path / name

    client = storages["default"].connection.meta.client
    yield be
    client.close()
