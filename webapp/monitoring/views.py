"""/healthz, /readyz and /metrics, for machines."""

from __future__ import annotations

import ipaddress
import secrets

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from webapp.monitoring import health, metrics

# A proxy of this host adds one of these to what it passes on for somebody else.
_PASSED_ON = ("forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip")


@login_not_required
@never_cache
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """200: this process answers. Nothing else is asked."""
    return HttpResponse("alive\n", content_type="text/plain")


@login_not_required
@never_cache
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """200 when requests can be served, else 503 with a line for each thing that fails."""
    faults = health.faults()
    lines = "".join(f"{name}: not ready\n" for name in faults) or "ready\n"
    return HttpResponse(lines, content_type="text/plain", status=503 if faults else 200)


@login_not_required
@never_cache
@require_safe
def show_metrics(request: HttpRequest) -> HttpResponse:
    """Metrics in Prometheus' text format; 404 for whoever may not read them."""
    if not _may_read(request):
        raise Http404
    return HttpResponse(metrics.exposition(), content_type=metrics.CONTENT_TYPE)


def _may_read(request: HttpRequest) -> bool:
    """With a token set, whoever sends it; without one, a process of this host that asks itself."""
    if settings.RETORT_METRICS_TOKEN:
        wanted = f"Bearer {settings.RETORT_METRICS_TOKEN}".encode()
        return secrets.compare_digest(request.headers.get("authorization", "").encode(), wanted)
    if any(name in request.headers for name in _PASSED_ON):
        return False
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False
