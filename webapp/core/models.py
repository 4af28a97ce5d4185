"""Accounts. Custom from the first migration, so that it can grow."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.auth.models import AbstractUser, UserManager
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models, transaction
from django.utils import timezone


class AccountManager(UserManager["User"]):
    """Makes accounts. One that nobody invited somewhere joins the installation's first project."""

    use_in_migrations = False

    def create_user(
        self, username: str, email: str | None = None, password: str | None = None, **values: Any
    ) -> User:
        """An account that may work in the first project."""
        from webapp.projects.access import first_project
        from webapp.projects.models import Membership, Role

        with transaction.atomic():
            user = super().create_user(username, email, password, **values)
            Membership.objects.create(project=first_project(), user=user, role=Role.OPERATOR)
        return user


class User(AbstractUser):
    """A person who signs in."""

    objects: ClassVar[AccountManager] = AccountManager()

    max_running_shards = models.PositiveIntegerField(
        null=True, blank=True,
        help_text="shards of this person's runs done at a time; blank: RETORT_USER_SHARDS decides",
    )  # fmt: skip

    # The one project that this object, which is never saved, speaks for the person in; no column.
    limited_to: int | None = None

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save; not what a limited token made of the account."""
        if self.limited_to is not None:
            raise TypeError("an account that acts in one project only is not for saving")
        super().save(*args, **kwargs)

    def limit_to(self, project_id: int) -> None:
        """Have this object act in one project only, by the person's own role in it."""
        self.limited_to = project_id
        self.is_staff = self.is_superuser = False


class AuditEntry(models.Model):
    """Who did what to which thing, and whence: written by webapp/core/audit.py, never changed.

    It refers to nothing: people, projects and things may go, and what was done to them stays.
    """

    at = models.DateTimeField(default=timezone.now, editable=False)
    user_key = models.BigIntegerField(null=True, help_text="of the account; null: nobody signed in")
    user_name = models.CharField(max_length=150, blank=True, help_text="at that time")
    through = models.CharField(max_length=60, help_text="session or token, by a prefix; or command")
    address = models.CharField(max_length=45, blank=True, help_text="the IP address; blank: none")
    action = models.CharField(max_length=60, help_text="run.cancel, checkpoint.delete …")
    kind = models.CharField(max_length=40, blank=True, help_text="of the thing: run, checkpoint …")
    key = models.CharField(max_length=40, blank=True, help_text="of the thing")
    name = models.CharField(max_length=200, blank=True, help_text="of the thing, at that time")
    project_key = models.BigIntegerField(null=True, help_text="of the project that the thing is in")
    project_name = models.CharField(max_length=100, blank=True, help_text="at that time")
    details = models.JSONField(default=dict, help_text="what else is worth knowing; no secrets")

    class Meta:
        ordering = ["-at", "-pk"]
        verbose_name_plural = "audit entries"
        indexes = [
            models.Index(fields=["at"], name="audit_at"),
            models.Index(fields=["project_key", "at"], name="audit_project"),
            models.Index(fields=["user_key", "at"], name="audit_user"),
            models.Index(fields=["kind", "key"], name="audit_thing"),
        ]

    def __str__(self) -> str:
        return f"{self.user_name or 'nobody'}: {self.action} {self.name}".rstrip()


class Session(AbstractBaseSession):
    """A browser that is signed in (or on the way), with what its person recognizes it by."""

    user = models.ForeignKey(User, null=True, on_delete=models.CASCADE, related_name="sessions")
    began_at = models.DateTimeField(null=True, help_text="when the person signed in")
    seen_at = models.DateTimeField(null=True, help_text="to some minutes")
    address = models.CharField(max_length=45, blank=True, help_text="the IP address, at that time")
    device = models.CharField(max_length=200, blank=True, help_text="what the browser says it is")

    @classmethod
    def get_session_store_class(cls) -> Any:
        """What reads and writes it."""
        from webapp.core.sessions import SessionStore

        return SessionStore


class Tries(models.Model):
    """How often somebody tried in vain, lately: webapp/core/throttling.py."""

    key = models.CharField(
        max_length=64, primary_key=True, help_text="SHA-256 of whose, and whence"
    )
    count = models.PositiveIntegerField(default=0)
    last_at = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name_plural = "tries"

    def __str__(self) -> str:
        return f"{self.count} tries"
