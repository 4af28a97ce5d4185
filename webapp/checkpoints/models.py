"""Checkpoints: model weights, tokenizer and config, addressed by content hash."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Lower
from django.urls import reverse


class Checkpoint(models.Model):
    """One set of weights; or, without files, a model that an endpoint serves or served, or one
    known only by completions made elsewhere.
    """

    name = models.CharField(max_length=200, unique=True)
    content_hash = models.CharField(max_length=64, blank=True, db_index=True)
    path = models.CharField(max_length=300, blank=True, help_text="folder in the file store")
    architecture = models.CharField(max_length=100, blank=True)
    parameters = models.BigIntegerField(null=True, blank=True)
    size_bytes = models.BigIntegerField(null=True, blank=True)
    dtype = models.CharField(max_length=20, blank=True)
    context_tokens = models.IntegerField(null=True, blank=True)
    has_chat_template = models.BooleanField(default=False)
    notes = models.TextField(blank=True)
    tags = ArrayField(models.CharField(max_length=40), default=list, blank=True)
    licence = models.CharField(
        max_length=100, blank=True, help_text="of the weights, an SPDX name as apache-2.0"
    )
    prompts_licence = models.CharField(
        max_length=100, blank=True, help_text="of the prompts that a student was taught with"
    )
    archived_at = models.DateTimeField(
        null=True, blank=True, help_text="since when lists and forms leave it out"
    )
    parent = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="children",
        help_text="the base this student was trained from",
    )
    produced_by = models.ForeignKey(
        "runs.Run", null=True, blank=True, on_delete=models.SET_NULL, related_name="products"
    )
    project = models.ForeignKey("projects.Project", on_delete=models.PROTECT)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        """The checkpoint's page."""
        return reverse("checkpoints:detail", args=[self.pk])

    @property
    def has_files(self) -> bool:
        """False for a model known only by its completions."""
        return bool(self.path)


class Upload(models.Model):
    """A checkpoint's folder on its way here, in quarantine until a worker has verified it.

    It comes in pieces from a browser, or a worker fetches it. What a worker does for it is leased,
    as a shard is: the token fences what counts, the times are the database's.
    """

    class State(models.TextChoices):
        """Where an upload stands."""

        RECEIVING = "receiving", "receiving"  # from a browser
        FETCHING = "fetching", "being fetched"  # by a worker
        CHECKING = "checking", "being checked"
        REGISTERED = "registered", "registered"
        REFUSED = "refused", "refused"

    class Source(models.TextChoices):
        """Where its files come from."""

        BROWSER = "browser", "a browser"
        HUB = "hub", "the hub"
        FOLDER = "folder", "a folder of the server"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey("projects.Project", on_delete=models.PROTECT)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT)
    name = models.CharField(max_length=200, help_text="of the checkpoint it will be")
    source = models.CharField(max_length=10, choices=Source, default=Source.BROWSER)
    origin = models.CharField(
        max_length=500, blank=True, help_text="OWNER/NAME on the hub, or a folder's path"
    )
    revision = models.CharField(
        max_length=200, blank=True, help_text="as asked for; the commit, once it is known"
    )
    state = models.CharField(max_length=10, choices=State, default=State.RECEIVING)
    reason = models.TextField(blank=True, help_text="why it was refused, or what is tried again")
    left_out = models.TextField(blank=True, help_text="names of files that were not taken")
    checkpoint = models.ForeignKey(
        Checkpoint, null=True, blank=True, on_delete=models.SET_NULL, related_name="uploads"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    touched_at = models.DateTimeField(auto_now_add=True, help_text="when bytes came last")
    lease_token = models.UUIDField(null=True, blank=True)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    not_before = models.DateTimeField(null=True, blank=True)
    attempts = models.IntegerField(default=0, help_text="leases of the present state")
    failures = models.IntegerField(default=0, help_text="of them, those that failed transiently")

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        """The upload's page."""
        return reverse("checkpoints:resume", args=[self.pk])

    @property
    def with_a_worker(self) -> bool:
        """Whether it is a worker's turn."""
        return self.state in (self.State.FETCHING, self.State.CHECKING)


# Uploads whose files are wanted.
LIVE_UPLOADS = (Upload.State.RECEIVING, Upload.State.FETCHING, Upload.State.CHECKING)


class UploadFile(models.Model):
    """One file of an upload: a resource of the tus protocol. Only ``offset_bytes`` of it count."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    upload = models.ForeignKey(Upload, on_delete=models.CASCADE, related_name="files")
    path = models.CharField(max_length=620, help_text="in the checkpoint's folder")
    length_bytes = models.BigIntegerField()
    offset_bytes = models.BigIntegerField(default=0)
    digest = models.CharField(
        max_length=80, blank=True, help_text="what its bytes must hash to: sha256:hex or git:hex"
    )

    class Meta:
        ordering = ["path"]
        constraints = [
            models.UniqueConstraint(
                "upload", Lower("path"), name="one_file_of_a_name_in_an_upload"
            ),
            models.CheckConstraint(
                condition=models.Q(offset_bytes__gte=0)
                & models.Q(offset_bytes__lte=models.F("length_bytes")),
                name="an_offset_lies_in_its_file",
            ),
        ]

    def __str__(self) -> str:
        return self.path

    @property
    def complete(self) -> bool:
        """All of it is here."""
        return self.offset_bytes == self.length_bytes
