"""Checkpoints: model weights, tokenizer and config, addressed by content hash."""

from __future__ import annotations

from django.conf import settings
from django.db import models
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
