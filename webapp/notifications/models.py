"""Who is told how a run ended, and what became of telling them."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from webapp.runs.models import Run, State


class Channel(models.TextChoices):
    """A way to reach somebody."""

    EMAIL = "email", "email"
    WEBHOOK = "webhook", "webhook"


class Preference(models.Model):
    """How a person wants to hear of the end of their runs; none: not at all."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="notification_preference"
    )
    email = models.EmailField(blank=True)
    webhook_url = models.CharField(max_length=500, blank=True)
    sealed_secret = models.TextField(
        blank=True, help_text="signs the webhook's messages; webapp/core/sealing.py"
    )
    on_finished = models.BooleanField(default=True)
    on_failed = models.BooleanField(default=True)
    on_cancelled = models.BooleanField(default=False)
    since = models.DateTimeField(help_text="runs that ended before this are not told of")

    def __str__(self) -> str:
        return f"notifications of {self.user}"

    def wants(self, state: str) -> bool:
        """Whether the person is told of a run that ended in ``state``."""
        wanted = {
            State.FINISHED: self.on_finished,
            State.FAILED: self.on_failed,
            State.CANCELLED: self.on_cancelled,
        }
        return wanted[State(state)]


class Notification(models.Model):
    """One message of one end of one run, by one channel. A retried run ends again: one more."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="notifications")
    state = models.CharField(max_length=20, choices=State)
    ended_at = models.DateTimeField()
    channel = models.CharField(max_length=10, choices=Channel)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField(
        null=True, help_text="when it is (tried) next; null: delivered, or given up"
    )
    delivered_at = models.DateTimeField(null=True, blank=True)
    error = models.CharField(max_length=300, blank=True, help_text="why the last try failed")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at", "-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["run", "ended_at", "user", "channel"], name="notification_once"
            )
        ]
        indexes = [
            models.Index(
                fields=["next_at"],
                name="notification_due",
                condition=models.Q(next_at__isnull=False),
            )
        ]

    def __str__(self) -> str:
        return f"{self.run} {self.state}, by {self.channel}"
