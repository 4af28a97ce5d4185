"""Tokens by which programs speak for a person."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone


class Scope(models.TextChoices):
    """What a token is good for; each scope holds what the ones before it do."""

    READ = "read", "read"  # look at what its owner sees, download it
    WRITE = "write", "write"  # launch, upload, change, delete
    ADMIN = "admin", "admin"  # what only administrators do: members, workers, limits


# A scope → the scopes that include it.
AT_LEAST: dict[Scope, tuple[Scope, ...]] = {
    scope: tuple(Scope)[place:] for place, scope in enumerate(Scope)
}


class ApiToken(models.Model):
    """A secret that stands for its owner; only its digest is kept, so who lost it makes another."""

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens"
    )
    name = models.CharField(max_length=100, help_text="where it is used")
    prefix = models.CharField(max_length=20, help_text="how the secret begins, to tell them apart")
    digest = models.CharField(max_length=64, unique=True, help_text="SHA-256 of the secret")
    scope = models.CharField(max_length=10, choices=Scope, default=Scope.READ)
    project = models.ForeignKey(
        "projects.Project", null=True, blank=True, on_delete=models.CASCADE, related_name="+",
        help_text="it sees nothing else; blank: all that its owner sees",
    )  # fmt: skip
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(
        null=True, blank=True, help_text="to the minute: not every request is written down"
    )
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return self.name

    @property
    def state(self) -> str:
        """Whether it opens anything: live, expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at <= timezone.now() else "live"
