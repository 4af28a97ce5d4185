"""What people say of outcomes, the score with it, and reports made on demand."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models.functions import Now


class Change(models.Model):
    """A note that what leaderboards say may have changed; triggers make it (``changes.sql``)."""

    evaluation = models.BigIntegerField(
        null=True, help_text="all that changed, graded before or after; null: anything"
    )
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"change {self.pk}"


class Dispute(models.Model):
    """A person's word that an outcome is not what the grader says. The verdict itself stays."""

    class Claim(models.TextChoices):
        """What the sample should have counted as."""

        CORRECT = "correct", "correct"
        WRONG = "wrong", "wrong"

    evaluation = models.ForeignKey(
        "runs.Evaluation", on_delete=models.CASCADE, related_name="disputes"
    )
    problem = models.ForeignKey("benchmarks.Problem", on_delete=models.PROTECT)
    sample = models.IntegerField()
    claim = models.CharField(max_length=10, choices=Claim)
    reason = models.TextField(max_length=2000)
    outcome = models.CharField(max_length=20, help_text="the grader's, when it was disputed")
    answer = models.TextField(null=True, blank=True, help_text="as it was extracted then")
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="disputes"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    withdrawn_at = models.DateTimeField(null=True, blank=True)
    withdrawn_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )

    class Meta:
        ordering = ["problem__position", "sample", "pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["evaluation", "problem", "sample"],
                condition=models.Q(withdrawn_at=None),
                name="one_open_dispute_of_a_sample",
            )
        ]

    def __str__(self) -> str:
        return f"{self.problem} sample {self.sample}: {self.claim}"


class DisputedScore(models.Model):
    """An evaluation's metrics if every open dispute were right; the grader's stay in Evaluation."""

    evaluation = models.OneToOneField(
        "runs.Evaluation", on_delete=models.CASCADE, related_name="disputed_score"
    )
    wanted = models.IntegerField(default=0, help_text="goes up with every dispute and withdrawal")
    scored = models.IntegerField(default=0, help_text="the metrics are of this state of ``wanted``")
    metrics = models.JSONField(null=True, blank=True, help_text="null where no dispute is open")
    error = models.TextField(blank=True)
    claimed_until = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.evaluation} with disputes"

    @property
    def is_due(self) -> bool:
        """The metrics are not those of the disputes as they are now."""
        return self.scored != self.wanted


class Report(models.Model):
    """A report that takes its time, made by a worker and kept under ``reports/``."""

    class State(models.TextChoices):
        """Where it stands."""

        QUEUED = "queued", "queued"
        READY = "ready", "ready"
        FAILED = "failed", "failed"

    evaluation = models.ForeignKey(
        "runs.Evaluation", on_delete=models.CASCADE, related_name="reports"
    )
    form = models.CharField(max_length=10)
    private_texts = models.BooleanField(default=False)
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    path = models.CharField(max_length=300, blank=True, help_text="in the file store")
    size_bytes = models.BigIntegerField(null=True, blank=True)
    sha256 = models.CharField(max_length=64, blank=True)
    error = models.TextField(blank=True, help_text="one sentence: why it could not be made")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT)
    created_at = models.DateTimeField(auto_now_add=True)
    made_at = models.DateTimeField(null=True, blank=True)
    claimed_until = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["evaluation", "form", "private_texts"],
                condition=models.Q(state="queued"),
                name="one_queued_report_of_a_form",
            )
        ]

    def __str__(self) -> str:
        return f"{self.evaluation}, {self.form}"
