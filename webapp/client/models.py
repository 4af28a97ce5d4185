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
    created_at: datetime


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


class Checkpoint(_Answer):
    """A set of weights; or a model known by an endpoint or by its completions only."""

    id: int
    name: str
    project: Named
    owner: str
    content_hash: str
    parameters: int | None
    has_files: bool


class Node(_Answer):
    """Something in a lineage; ``here``: what was asked about."""

    key: str
    role: str
    name: str
    note: str
    missing: bool
    here: bool


class Edge(_Answer):
    """From what was used to what was made of it, by keys of nodes."""

    source: str
    target: str


class Graph(_Answer):
    """A lineage."""

    nodes: list[Node]
    edges: list[Edge]


class Figure(_Answer):
    """A line of an estimate, with what it rests on."""

    name: str
    value: str
    basis: str


class Column(_Answer):
    """What is measured on a benchmark."""

    benchmark: str
    samples: int
    metrics: list[str]
    completions: int


class Plan(_Answer):
    """What a launch of evaluations asks for."""

    evaluations: int
    completions: int
    temperature: float
    max_tokens: int
    columns: list[Column]
    times: list[Figure]


class Written(_Answer):
    """A recipe with every default, and the same work as commands."""

    yaml: str
    commands: str


class Kept(_Answer):
    """Chats that are there now."""

    file: str


class Benchmark(_Answer):
    """One version of a benchmark."""

    id: int
    name: str
    title: str
    content_hash: str
    grader: str
    problem_count: int
    source: str


class PromptSet(_Answer):
    """One version of a prompt set."""

    id: int
    name: str
    content_hash: str
    prompt_count: int


class Contest(_Answer):
    """A contest that programs are ranked in."""

    contest_id: str
    name: str
    scoring: str
    participants: int
    problem_count: int


class Population(_Answer):
    """The ratings that percentiles refer to."""

    name: str
    size: int


class Added(_Answer):
    """What a contest bundle, or a population, brought."""

    contests: list[Contest]
    population: Population | None
    rated_again: int


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
