"""deploy/nginx.conf before the real web server: slow bodies hold nobody up, pieces pass."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.hosts.servers import free_port, wait_for
from tests.serving import serving
from webapp.api import tokens
from webapp.api.models import Scope
from webapp.checkpoints import uploads

CONF = Path(__file__).resolve().parents[2] / "deploy" / "nginx.conf"
NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin") or "nginx"
SLOW = 32  # connections; the web server answers in 8 threads


def certificate(folder: Path) -> None:
    """A certificate of our own for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "retort.example.org")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    (folder / "fullchain.pem").write_bytes(made.public_bytes(pem))
    (folder / "privkey.pem").write_bytes(
        key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip


@pytest.fixture
def proxy(process_environment: dict[str, str], tmp_path: Path) -> Iterator[int]:
    """The port of nginx, with the file as it is but for its addresses and paths."""
    certificate(tmp_path)
    port = free_port()
    told = process_environment | {"RETORT_HTTPS": "1"}
    with serving(told) as web:
        site = CONF.read_text().replace("web:8000", f"127.0.0.1:{web}")
        site = site.replace("listen 80;", f"listen 127.0.0.1:{free_port()};")
        site = site.replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;")
        site = site.replace("/etc/nginx/tls/", f"{tmp_path}/")
        kept = " ".join(
            f"{each}_temp_path {tmp_path}/{each};"
            for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        whole = f"daemon off; user root; pid {tmp_path}/pid; worker_processes 1; events {{}}\n"
        if os.geteuid() != 0:
            whole = whole.replace("user root; ", "")
        (tmp_path / "nginx.conf").write_text(f"{whole}http {{ {kept}\n{site}\n}}\n")
        with (tmp_path / "said").open("wb") as log:
            process = subprocess.Popen(
                [NGINX, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", "stderr"],
                stderr=log, stdout=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        try:
            wait_for(
                lambda: process.poll() is not None or well(port), "nginx", 30
            )  # fmt: skip
            assert process.poll() is None, (tmp_path / "said").read_text()
            yield port
        finally:
            process.terminate()
            process.wait(20)


def client(port: int, **more: Any) -> httpx.Client:
    return httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=False, timeout=20, **more)


def well(port: int) -> bool:
    try:
        with client(port) as here:
            return here.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def sent(port: int, head: str, body: bytes) -> ssl.SSLSocket:
    """A connection on which a request was begun, with as much of its body."""
    context = ssl._create_unverified_context()  # the certificate is our own
    line = socket.create_connection(("127.0.0.1", port), timeout=20)
    secure = context.wrap_socket(line, server_hostname="retort.example.org")
    secure.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
    return secure


@pytest.mark.django_db(transaction=True)
def test_slow_bodies_hold_nobody_up_and_pieces_pass_as_they_come(
    proxy: int, user: Any, tmp_path: Path
) -> None:
    """32 forms that never end, then pages and forms; half a piece; links in no log (about 20 s)."""
    head = "POST /accounts/login/ HTTP/1.1\nHost: 127.0.0.1\nContent-Length: 1000"
    held = [sent(proxy, head, b"username=") for _ in range(SLOW)]
    began = time.monotonic()
    with client(proxy) as here:
        for _ in range(5):
            page = here.get("/accounts/login/")
            csrf = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
            assert csrf is not None
        assert "Secure" in page.headers["set-cookie"]
        form = {"csrfmiddlewaretoken": csrf[1], "username": "ada", "password": "wrong one"}
        referer = {"Referer": f"https://127.0.0.1:{proxy}/accounts/login/"}
        assert here.post("/accounts/login/", data=form, headers=referer).status_code in (200, 400)
        assert here.post("/accounts/login/", content=b"x" * 4_000_000).status_code == 413
        secret = "s" * 43
        here.get(f"/projects/invitations/{secret}/")
    assert time.monotonic() - began < 15
    for each in held:
        each.close()
    assert_a_piece_passes(proxy, user)
    assert secret not in (tmp_path / "said").read_text()


def assert_a_piece_passes(port: int, user: Any) -> None:
    """What came of a piece counts when its connection breaks."""
    _, token = tokens.make(user, name="a program's", scope=Scope.WRITE)
    file = uploads.declare(uploads.begin(user, "model"), "config.json", 4 << 20)
    head = (
        f"PATCH /api/v1/uploads/{file.upload_id}/files/{file.pk}/ HTTP/1.1\nHost: 127.0.0.1\n"
        f"Authorization: Bearer {token}\nTus-Resumable: 1.0.0\nUpload-Offset: 0\n"
        f"Content-Type: application/offset+octet-stream\nContent-Length: {4 << 20}"
    )
    line = sent(port, head, b"x" * (2 << 20))
    place = uploads.place_of(file)
    wait_for(lambda: place.exists() and place.stat().st_size > 0, "the first of it is written", 30)
    line.close()

    def counted() -> bool:
        file.refresh_from_db()
        return file.offset_bytes >= 1 << 20

    wait_for(counted, "what came counts", 30)
