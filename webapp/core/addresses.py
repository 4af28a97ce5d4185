"""Whence a request comes."""

from __future__ import annotations

import ipaddress

from django.conf import settings
from django.http import HttpRequest


def address_of(request: HttpRequest) -> str:
    """The IP address of whoever asks, blank where it is none (a unix socket).

    Behind ``RETORT_PROXIES`` proxies of our own it is what the outermost of them wrote into
    X-Forwarded-For: counted from the right, since whoever asks writes whatever they like on the
    left. An IPv6 address that stands for an IPv4 one is that one.
    """
    found = str(request.META.get("REMOTE_ADDR", ""))
    if settings.RETORT_PROXIES:
        hops = [hop.strip() for hop in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")]
        if len(hops) >= settings.RETORT_PROXIES:
            found = hops[-settings.RETORT_PROXIES]
    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
