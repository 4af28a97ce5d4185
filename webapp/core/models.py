"""Accounts. Custom from the first migration, so that it can grow."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.auth.models import AbstractUser, UserManager
from django.db import models, transaction


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
