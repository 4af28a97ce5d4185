"""The web server is killed in the middle of an upload, and the upload goes on when it is back."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed

from tests.webapp.models import model_files
from webapp.checkpoints import uploads
from webapp.checkpoints.models import Upload

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[[], subprocess.Popen[bytes]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/accounts/login/")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture
def server(process_environment: dict[str, str]) -> Iterator[tuple[int, Start]]:
    """A port, and what starts the real web server on it; whatever is left is killed."""
    port = free_port()
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1",
             "--port", str(port), "--no-ws", "webapp.config.wsgi:application"],
            cwd=settings.BASE_DIR, env=process_environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        started.append(process)
        deadline = time.monotonic() + 60
        while not answers(port):
            assert process.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.1)
        return process

    yield port, start
    for process in started:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_an_upload_survives_the_servers_death(
    user: Any, server: tuple[int, Start], tmp_path: Path
) -> None:
    port, start = server
    process = start()
    upload = uploads.begin(user, "model")
    data = model_files()["model.safetensors"] + bytes(range(256)) * 20_000
    source = tmp_path / "model.safetensors"
    source.write_bytes(data)
    page = Client()
    page.force_login(user)
    page.get(reverse("checkpoints:upload"))
    cookies = "; ".join(f"{key}={morsel.value}" for key, morsel in page.cookies.items())
    headers = {"Cookie": cookies, "X-CSRFToken": page.cookies["csrftoken"].value}
    endpoint = f"http://127.0.0.1:{port}" + reverse("checkpoints:tus-files", args=[upload.pk])
    client = TusClient(endpoint, headers=headers)
    with source.open("rb") as stream:
        first = client.uploader(
            file_stream=stream, chunk_size=20_000, metadata={"path": source.name}, retries=0
        )
        first.upload(stop_at=100_000)
        # From here on the server dies at some piece, whichever it is.
        killer = threading.Timer(0.2, kill, [process])
        killer.start()
        with pytest.raises((TusCommunicationError, TusUploadFailed, OSError)):
            first.upload()
        killer.join()
        here = upload.files.get().offset_bytes
        assert 100_000 <= here < len(data)
        start()
        second = client.uploader(
            file_stream=stream, chunk_size=1_000_000, url=first.url, upload_checksum=True
        )
        assert second.offset == here
        second.upload()
    file = Upload.objects.get().files.get()
    assert file.complete
    stored = uploads.place_of(file).read_bytes()
    assert hashlib.sha256(stored).digest() == hashlib.sha256(data).digest()
