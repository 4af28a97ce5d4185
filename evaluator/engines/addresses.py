"""Which addresses an endpoint may have where its address was chosen by somebody else.

A server that asks any address for its users could be sent to what only it can reach: other
services on its host or its network, a cloud's metadata. The check stands where the connection is
made, on the very address that it is made to: what a name resolved to before does not matter.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Any


class NotPublicError(OSError):
    """A connection was refused by us, because its address belongs to a private network."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "the address is not public")


def is_public(host: str) -> bool:
    """Whether a numeric address is one of the internet's: no loopback, private, link-local one.

    Addresses that stand for an IPv4 address (mapped, 6to4, Teredo) are as public as that one.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(str(address.ipv4_mapped))
        inner = [address.sixtofour, *(address.teredo or ())]
        if any(each is not None and not is_public(str(each)) for each in inner):
            return False
        if address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def public_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket for ``address`` (family, kind, protocol, name, (host, port, …)), as aiohttp asks.

    Raises NotPublicError for an address that is not public.
    """
    family, kind, protocol, _, place = address
    if not is_public(str(place[0])):
        raise NotPublicError
    return socket.socket(family, kind, protocol)
