"""Benchmarks (for measuring) and prompt sets (for trace generation): never the same thing."""

from __future__ import annotations

from django.db import models


class Benchmark(models.Model):
    """One version of a named set of problems; the content hash tells versions apart."""

    name = models.SlugField(max_length=60, help_text="the evaluator's registry name: aime_2024")
    title = models.CharField(max_length=120)
    content_hash = models.CharField(max_length=64)
    grader = models.CharField(max_length=30)
    problem_count = models.IntegerField()
    source = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name", "-created_at"]
        constraints = [
            models.UniqueConstraint(fields=["name", "content_hash"], name="benchmark_version")
        ]

    def __str__(self) -> str:
        return self.title


class Problem(models.Model):
    """A question with its reference answer."""

    benchmark = models.ForeignKey(Benchmark, on_delete=models.CASCADE, related_name="problems")
    problem_id = models.CharField(max_length=200)
    position = models.IntegerField()
    problem = models.TextField()
    answer = models.TextField()
    subject = models.CharField(max_length=100, blank=True)
    level = models.CharField(max_length=30, blank=True)
    options = models.JSONField(default=list, blank=True)
    content_hash = models.CharField(max_length=64)

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["benchmark", "problem_id"], name="problem_key")
        ]

    def __str__(self) -> str:
        return self.problem_id


class Contest(models.Model):
    """A contest whose participants programs are ranked among; standings in a file of the store."""

    contest_id = models.CharField(max_length=60, unique=True, help_text="the site's own: 1350")
    name = models.CharField(max_length=200)
    scoring = models.CharField(max_length=10, help_text="points or icpc")
    participants = models.IntegerField(help_text="rated ones")
    problem_count = models.IntegerField()
    content_hash = models.CharField(max_length=64)
    path = models.CharField(max_length=300)
    created_at = models.DateTimeField(auto_now=True, help_text="when it was last imported")

    class Meta:
        ordering = ["contest_id"]

    def __str__(self) -> str:
        return self.name


class RatingPopulation(models.Model):
    """The ratings that percentiles refer to; the newest one counts."""

    name = models.CharField(max_length=200)
    size = models.IntegerField()
    content_hash = models.CharField(max_length=64, unique=True)
    path = models.CharField(max_length=300)
    created_at = models.DateTimeField(auto_now=True, help_text="when it was last imported")

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.name


class PromptSet(models.Model):
    """A named set of problems to draw traces for, kept as a JSONL file in the store."""

    name = models.SlugField(max_length=60)
    content_hash = models.CharField(max_length=64)
    path = models.CharField(max_length=300)
    prompt_count = models.IntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name", "-created_at"]
        constraints = [
            models.UniqueConstraint(fields=["name", "content_hash"], name="prompt_set_version")
        ]

    def __str__(self) -> str:
        return self.name
