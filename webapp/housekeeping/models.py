"""What housekeeping remembers: what is put away, and where it has been."""

from __future__ import annotations

from django.db import models


class Unreferenced(models.Model):
    """Something in the file store that no row referred to when it was looked at."""

    path = models.CharField(max_length=700, unique=True, help_text="in the file store")
    since = models.DateTimeField(help_text="the first of the rounds in a row that found it so")

    def __str__(self) -> str:
        return self.path


class ArchivedRun(models.Model):
    """A run that lists leave out; its page and figures stay."""

    run = models.OneToOneField("runs.Run", on_delete=models.CASCADE, related_name="archived")
    at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return str(self.run)


class TidiedStage(models.Model):
    """A stage whose working files were removed, after its run had ended."""

    stage = models.OneToOneField("runs.Stage", on_delete=models.CASCADE, related_name="tidied")
    at = models.DateTimeField()

    def __str__(self) -> str:
        return str(self.stage)
