"""What the server answers, as far as the client reads it; what is new in it is left alone."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Place(_Answer):
    """A project, and one's role in it."""

    id: int
    name: str
    role: str


class Me(_Answer):
    """Who the token speaks for."""

    username: str
    administrator: bool
    projects: list[Place]
    scope: str | None
    expires_at: datetime | None


class Stage(_Answer):
    """A step of a run."""

    title: str
    state: str
    done: int
    total: int
    unit: str
    fraction: float | None
    tokens_per_second: float | None
    eta_seconds: float | None
    error: str


class Named(_Answer):
    """A thing by key and name."""

    id: int
    name: str


class Run(_Answer):
    """A run as lists show it."""

    id: int
    name: str
    kind: str
    state: str
    final: bool
    project: Named
    owner: str
    error: str
    fraction: float
    stage: str
    created_at: datetime


class RunDetail(Run):
    """A run with its stages."""

    stages: list[Stage]
    waiting: str
    evaluations: list[int]
    products: list[Named]


class Log(_Answer):
    """The last lines of a stage."""

    title: str
    log_tail: str


class UploadFile(_Answer):
    """A file of an upload; ``url`` takes its pieces."""

    path: str
    length_bytes: int
    offset_bytes: int
    url: str


class Upload(_Answer):
    """An upload; ``checkpoint`` is the key of what it became."""

    id: str
    name: str
    state: str
    reason: str
    checkpoint: int | None


class UploadDetail(Upload):
    """An upload with its files."""

    files: list[UploadFile]


class Evaluation(_Answer):
    """A checkpoint measured on a benchmark; shares are in [0, 1]."""

    id: int
    run: int
    checkpoint: str
    benchmark: str
    samples: int
    measurement_hash: str
    pass_at_1: float | None
    created_at: datetime


class Contrast(_Answer):
    """A paired difference from the baseline."""

    difference: float
    low: float | None
    high: float | None
    p_holm: float
    verdict: str


class Score(_Answer):
    """An evaluation on the problems that all share."""

    letter: str
    evaluation: int
    name: str
    baseline: bool
    value: float | None
    low: float | None
    high: float | None
    contrast: Contrast | None


class Comparison(_Answer):
    """Evaluations side by side."""

    problems: int
    scores: list[Score]
    sentences: list[str]


class Report(_Answer):
    """A report that a worker makes, or has made."""

    id: int
    form: str
    private_texts: bool
    state: str
    error: str
    sha256: str = Field(description="Of the file, once it is there.")
