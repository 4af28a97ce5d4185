"""Accounts. Custom from the first migration, so that it can grow."""

from django.contrib.auth.models import AbstractUser
from django.db import models


class User(AbstractUser):
    """A person who signs in."""

    max_running_shards = models.PositiveIntegerField(
        null=True, blank=True,
        help_text="shards of this person's runs done at a time; blank: RETORT_USER_SHARDS decides",
    )  # fmt: skip
