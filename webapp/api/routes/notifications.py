"""One's own notifications."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.http import HttpRequest
from pydantic import Field

from webapp.api.auth import WRITE
from webapp.api.forms import cleaned
from webapp.api.framework import Router, Schema
from webapp.api.schemas import Done, In, Text
from webapp.core import audit
from webapp.core.users import signed_in
from webapp.notifications import services
from webapp.notifications.forms import PreferenceForm
from webapp.notifications.models import Channel, Preference

router = Router(tags=["notifications"])


class PreferenceOut(Schema):
    """How one hears of the end of one's runs."""

    email: str
    webhook_url: str
    on_finished: bool
    on_failed: bool
    on_cancelled: bool


class PreferenceSaved(PreferenceOut):
    """The same, and the webhook's secret where a new one was made."""

    secret: str = Field(description="Shown this once; blank: the old one stays.")


class PreferenceIn(In):
    """Where to, and of which ends; a blank address: not there."""

    email: Text = Field("", max_length=254)
    webhook_url: Text = Field("", max_length=500)
    new_secret: bool = False
    on_finished: bool = True
    on_failed: bool = True
    on_cancelled: bool = False


def _out(wish: Preference) -> dict[str, Any]:
    return {name: getattr(wish, name) for name in PreferenceOut.model_fields}


@router.get("", response=PreferenceOut)
def notifications_settings(request: HttpRequest) -> dict[str, Any]:
    """One's settings."""
    return _out(services.preference_of(signed_in(request)))


@router.put("", response=PreferenceSaved, auth=WRITE)
def notifications_change(request: HttpRequest, body: PreferenceIn) -> dict[str, Any]:
    """Change one's settings."""
    person = signed_in(request)
    wish = services.preference_of(person)
    values = cleaned(PreferenceForm(body.model_dump(), has_secret=bool(wish.sealed_secret)))
    with transaction.atomic():
        secret = services.set_preference(person, **values)
        audit.record(person, "notifications.change")
    return _out(services.preference_of(person)) | {"secret": secret}


@router.post("/test/{channel}", response=Done, auth=WRITE)
def notifications_test(request: HttpRequest, channel: Channel) -> dict[str, str]:
    """Send a test to the saved address: some seconds at most."""
    services.test_delivery(signed_in(request), channel)
    return {"sentence": f"The test was delivered by {channel}."}
