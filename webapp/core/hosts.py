"""What this host is called."""

from __future__ import annotations

import socket

from django.conf import settings


def host_name() -> str:
    """RETORT_HOST, or else the hostname."""
    return settings.RETORT_HOST or socket.gethostname()
