"""What housekeeping remembers: what is put away, and where it has been."""

from __future__ import annotations

from django.db import models


class Unreferenced(models.Model):
    """Something in the file store that no row referred to when it was looked at."""

    path = models.CharField(max_length=700, help_text="in the file store")
    host = models.CharField(
        max_length=200, default="", help_text="among whose copies it is; blank: in the store"
    )
    since = models.DateTimeField(help_text="the first of the rounds in a row that found it so")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["path", "host"], name="unreferenced_once_a_place")
        ]

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

    stage = models.ForeignKey("runs.Stage", on_delete=models.CASCADE, related_name="tidied")
    host = models.CharField(
        max_length=200, default="", help_text="whose files went; blank: those all hosts share"
    )
    at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["stage", "host"], name="tidied_once_a_place")
        ]

    def __str__(self) -> str:
        return str(self.stage)
