"""Slow and large requests. What of them is left to a proxy stands in docs/security.md."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client

from tests.serving import served, serving

ROOT = Path(__file__).resolve().parents[3]
SLOW = 24  # connections; the server answers in 8 threads


@pytest.fixture
def server(process_environment: dict[str, str]) -> Iterator[int]:
    """The web server as ``manage.py up`` starts it."""
    with serving(process_environment) as port:
        yield port


def opened(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(b"POST /accounts/login/ HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    return connection


@pytest.mark.django_db(transaction=True)
def test_who_never_ends_the_headers_holds_nobody_up(server: int) -> None:
    held = [opened(server) for _ in range(SLOW)]
    try:
        for _ in range(5):
            assert served(server)
    finally:
        for each in held:
            each.close()


@pytest.mark.django_db
def test_a_form_that_is_too_large_is_refused(client: Client, user: object) -> None:
    client.force_login(user)  # type: ignore[arg-type]
    for body, kind in (
        ({"yaml": "x" * 3_000_000}, "application/x-www-form-urlencoded"),
        ("&".join(f"a{i}=1" for i in range(3000)), "application/x-www-form-urlencoded"),
    ):
        data = body if isinstance(body, str) else "yaml=" + body["yaml"]
        answer = client.post("/runs/distil/", data, content_type=kind)
        assert answer.status_code == 400
        assert b"too large" in answer.content
