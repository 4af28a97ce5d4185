"""Endpoints: models that are served elsewhere, behind OpenAI's HTTP interface."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.urls import reverse


class Endpoint(models.Model):
    """One served model. Where it is and what it is called stay: a score was measured of that.

    Its checkpoint has no files; it stands for the model wherever a checkpoint's name and scores
    are shown.
    """

    checkpoint = models.OneToOneField(
        "checkpoints.Checkpoint", on_delete=models.PROTECT, related_name="endpoint"
    )
    base_url = models.CharField(max_length=500)
    model = models.CharField(max_length=200, help_text="the name by which the endpoint serves it")
    sealed_key = models.TextField(blank=True, help_text="webapp/core/sealing.py; blank: no key")
    concurrency = models.PositiveIntegerField(default=64, help_text="requests at a time, at most")
    input_price = models.FloatField(
        null=True, blank=True, validators=[MinValueValidator(0)], help_text="per million tokens"
    )
    output_price = models.FloatField(
        null=True, blank=True, validators=[MinValueValidator(0)], help_text="per million tokens"
    )
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.checkpoint.name

    @property
    def project_id(self) -> int:
        """Its checkpoint's project is its own."""
        return self.checkpoint.project_id

    def get_absolute_url(self) -> str:
        """The endpoint's page."""
        return reverse("endpoints:detail", args=[self.pk])
