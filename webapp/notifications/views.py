"""The person's own notifications: where to, of which ends, what was sent lately."""

from __future__ import annotations

from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from webapp.core import audit
from webapp.core.errors import UserError
from webapp.core.users import signed_in
from webapp.notifications import services
from webapp.notifications.forms import PreferenceForm
from webapp.notifications.models import Channel, Notification, Preference
from webapp.projects.access import seen_by

SHOWN = 20
_FIELDS = ("email", "webhook_url", "on_finished", "on_failed", "on_cancelled")


@require_http_methods(["GET", "HEAD", "POST"])
def preference(request: HttpRequest) -> HttpResponse:
    """See and change the settings."""
    wish = services.preference_of(signed_in(request))
    kept = {name: getattr(wish, name) for name in _FIELDS}
    data = request.POST if request.method == "POST" else None
    form = PreferenceForm(data, initial=kept, has_secret=bool(wish.sealed_secret))
    if form.is_bound and form.is_valid():
        try:
            with transaction.atomic():
                secret = services.set_preference(signed_in(request), **form.cleaned_data)
                audit.record(signed_in(request), "notifications.change")
        except UserError as error:
            form.add_error(error.field, error.sentence)
        else:
            if not secret:
                messages.success(request, "Saved.")
                return redirect("notifications:settings")
            # Shown in this one answer: not in a session, not in a redirect's address.
            form = PreferenceForm(initial=form.cleaned_data, has_secret=True)
            return _page(request, form, secret)
    return _page(request, form)


def _page(request: HttpRequest, form: PreferenceForm, secret: str = "") -> HttpResponse:
    user = signed_in(request)
    wish = Preference.objects.filter(user=user).first()
    context = {
        "form": form,
        "secret": secret,
        "channels": [
            channel
            for channel, place in (
                (Channel.EMAIL, wish and wish.email),
                (Channel.WEBHOOK, wish and wish.webhook_url),
            )
            if place
        ],
        "sent": seen_by(user, Notification.objects.filter(user=user), "run__project")
        .select_related("run")
        .defer("run__config")[:SHOWN],
    }
    answer = render(
        request, "notifications/settings.html", context, status=400 if form.is_bound else 200
    )
    answer["Cache-Control"] = "no-store"
    return answer


@require_POST
def test(request: HttpRequest, channel: str) -> HttpResponse:
    """Send a test to the saved address: some seconds at most."""
    if channel not in Channel.values:
        raise Http404
    try:
        services.test_delivery(signed_in(request), channel)
    except UserError as error:
        messages.error(request, error.sentence)
    else:
        messages.success(request, f"The test was delivered by {channel}.")
    return redirect("notifications:settings")
