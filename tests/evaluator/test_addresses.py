"""An address that somebody else chose leads to nothing but the internet, whatever it is called."""

from __future__ import annotations

import ipaddress
import socket
import time
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from evaluator.engines import addresses, create
from evaluator.engines.addresses import is_public
from evaluator.engines.probe import probe
from evaluator.errors import InputError
from tests.evaluator.endpoint_stub import Body, Stub

KEY = "sk-never-to-be-seen-4711"

PRIVATE = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "198.18.0.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255", "192.0.0.1", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1",
    "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "2002:7f00:1::",
    "2002:a9fe:a9fe::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2001:db8::1", "100::1",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_in_ipv6_clothes_is_as_public_as_itself(
    address: ipaddress.IPv4Address,
) -> None:
    assert is_public(f"::ffff:{address}") == is_public(str(address))
    high, low = divmod(int(address), 1 << 16)
    if not is_public(str(address)):
        assert not is_public(f"2002:{high:x}:{low:x}::")


def named(monkeypatch: pytest.MonkeyPatch, answers: dict[str, list[str]]) -> list[str]:
    """Let names resolve as told, without a network; returns the names that were asked."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host not in answers:
            return real(host, port, *rest, **more)
        asked.append(host)
        found = answers[host]
        # A rebinding name says something else each time.
        address = [found[min(len(asked), len(found)) - 1]] if len(found) > 1 else found
        return [each for place in address for each in real(place, port, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


def engine(url: str, **more: Any) -> Any:
    return create({"name": "openai", "model": "m", "base_url": url, **more})


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "evil.example", "[::1]"])
def test_a_private_endpoint_is_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    named(monkeypatch, {"evil.example": ["127.0.0.1"]})
    with Stub(models=[{"id": "m"}]) as stub:
        url = f"http://{host}:{stub.port}/v1"
        for ask in (
            lambda: engine(url, public_only=True),
            lambda: probe(url, model="m", key=KEY, public_only=True),
        ):
            with pytest.raises(InputError, match=r"private network.*RETORT_ALLOW_PRIVATE") as said:
                ask()
            assert KEY not in str(said.value)
        assert not stub.requests


def test_without_the_rule_the_same_endpoint_answers() -> None:
    with Stub(models=[{"id": "m", "owned_by": "vllm", "max_model_len": 99}, {"id": "n"}]) as stub:
        found = probe(stub.url, model="m", key=KEY)
        assert found.models == ("m", "n")
        assert (found.greeting.server, found.greeting.context_tokens) == ("vllm", 99)
        engine(stub.url).close()


def test_a_name_that_changes_its_address_is_checked_at_every_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """First an address that passes, then, at the next look-up, one that does not."""
    named(monkeypatch, {"rebinding.example": ["127.0.0.1", "127.0.0.2"]})
    monkeypatch.setattr(addresses, "is_public", lambda host: host == "127.0.0.1")
    with Stub(models=[{"id": "m"}]) as stub:
        url = f"http://rebinding.example:{stub.port}/v1"
        drawing = engine(url, public_only=True)  # greeted at the first address
        assert stub.requests
        with pytest.raises(InputError, match="private network"):
            probe(url, model="m", public_only=True)
        drawing.close()


def test_a_probe_follows_no_redirect_and_does_not_wait() -> None:
    async def elsewhere(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        raise web.HTTPFound("http://169.254.169.254/latest")

    with Stub(listing=elsewhere) as stub, pytest.raises(InputError, match="redirects to 169"):
        probe(stub.url, model="m")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection, says nothing
        started = time.monotonic()
        with pytest.raises(InputError, match=r"no answer within 0\.3 s"):
            probe(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", model="m", seconds=0.3)
        assert time.monotonic() - started < 3


def test_a_probe_does_not_wait_for_a_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def slow(host: Any, *rest: Any, **more: Any) -> Any:
        if host == "slow.example":
            time.sleep(1.5)
            raise socket.gaierror("too late")
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    started = time.monotonic()
    with pytest.raises(InputError, match="no answer within"):
        probe("http://slow.example/v1", model="m", seconds=0.2)
    assert time.monotonic() - started < 1.2


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "the key is missing or not accepted"), (500, "HTTP 500"), (403, "not accepted")],
)
def test_a_probe_says_what_is_wrong(status: int, said: str) -> None:
    async def refuse(stub: Stub, request: web.Request, body: Body) -> web.StreamResponse:
        return web.json_response({"error": {"message": f"bad key {KEY}"}}, status=status)

    with Stub(listing=refuse) as stub, pytest.raises(InputError, match=said) as error:
        probe(stub.url, model="m", key=KEY)
    assert KEY not in str(error.value)


def test_an_endpoint_without_a_list_is_there_all_the_same() -> None:
    with Stub() as stub:
        assert probe(stub.url, model="m").models == ()
