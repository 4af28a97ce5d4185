"""What lies where."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest

from webapp.api.auth import ADMIN, require_staff
from webapp.api.framework import Router, Schema
from webapp.checkpoints import uploads
from webapp.core.users import signed_in
from webapp.housekeeping import usage

router = Router(tags=["storage"])


class PartOut(Schema):
    """A kind of files."""

    name: str
    count: int
    size_bytes: int


class OwnOut(Schema):
    """What one's things take."""

    parts: list[PartOut]
    used_bytes: int
    quota_bytes: int | None


class DiskOut(Schema):
    """The whole store."""

    parts: list[PartOut]
    free_bytes: int
    total_bytes: int


@router.get("", response=OwnOut)
def storage_own(request: HttpRequest) -> dict[str, Any]:
    """What one's own things take."""
    person = signed_in(request)
    return {
        "parts": [_part(each) for each in usage.own(person)],
        "used_bytes": uploads.used_bytes(person),
        "quota_bytes": settings.RETORT_UPLOAD_QUOTA_BYTES or None,
    }


@router.get("/disk", response=DiskOut, auth=ADMIN)
def storage_disk(request: HttpRequest) -> dict[str, Any]:
    """The whole store, by looking at it."""
    require_staff(request)
    found = usage.disk()
    return {
        "parts": [_part(each) for each in found.parts],
        "free_bytes": found.free_bytes, "total_bytes": found.total_bytes,
    }  # fmt: skip


def _part(each: usage.Part) -> dict[str, Any]:
    return {name: getattr(each, name) for name in PartOut.model_fields}
