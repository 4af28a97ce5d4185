"""The truth about runs: runs, their stages, the shards that are leased, what was accepted."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.urls import reverse


class State(models.TextChoices):
    """State of a run or stage. A state is not an outcome: "finished" says nothing of scores."""

    WAITING = "waiting", "waiting"  # an earlier stage is not finished
    QUEUED = "queued", "queued"  # claimable
    RUNNING = "running", "running"
    FINISHED = "finished", "finished"
    FAILED = "failed", "failed"
    CANCELLED = "cancelled", "cancelled"


FINAL_STATES = (State.FINISHED, State.FAILED, State.CANCELLED)


class Run(models.Model):
    """What a user launches: a distillation (by a recipe), an evaluation, or a recipe's check."""

    class Kind(models.TextChoices):
        DISTILLATION = "distillation", "distillation"
        EVALUATION = "evaluation", "evaluation"
        CHECK = "check", "check"

    kind = models.CharField(max_length=20, choices=Kind)
    name = models.CharField(max_length=200)
    state = models.CharField(max_length=20, choices=State, default=State.QUEUED, db_index=True)
    config = models.JSONField(help_text="the resolved recipe, or the protocol")
    error = models.TextField(blank=True, help_text="one sentence: why it failed")
    priority = models.SmallIntegerField(
        default=0, help_text="a run of higher priority has its shards claimed first"
    )
    project = models.ForeignKey("projects.Project", on_delete=models.PROTECT)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        """The run's page."""
        return reverse("runs:detail", args=[self.pk])


class Evaluation(models.Model):
    """checkpoint × benchmark × protocol, with its figures once graded."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="evaluations")
    checkpoint = models.ForeignKey(
        "checkpoints.Checkpoint",
        null=True,
        on_delete=models.CASCADE,
        related_name="evaluations",
        help_text="null until a distillation's student exists",
    )
    role = models.CharField(max_length=20, blank=True, help_text="base, teacher, student or blank")
    benchmark = models.ForeignKey(
        "benchmarks.Benchmark", on_delete=models.PROTECT, related_name="evaluations"
    )
    protocol = models.JSONField()
    samples = models.IntegerField(help_text="n")
    engine = models.JSONField(default=dict, help_text="name, versions, dtype, hardware")
    measurement_hash = models.CharField(max_length=64, db_index=True)
    run_fingerprint = models.CharField(max_length=64, blank=True)
    rendered_prompt = models.TextField(blank=True, help_text="the first prompt as the model saw it")
    metrics = models.JSONField(null=True, blank=True, help_text="PROTOCOLS §2's metrics.json")
    pass_at_1 = models.FloatField(null=True, blank=True, db_index=True)
    # The database keeps both beside the metrics, whose problems are a hundred times as long: lists
    # of thousands of scores read these.
    summary = models.GeneratedField(
        expression=models.Func(
            "metrics",
            template="(%(expressions)s - 'per_problem' - 'by' - 'measurement' - 'run' "
            "#- '{rating,elo,contests}' #- '{rating,codeelo,contests}')",
            output_field=models.JSONField(),
        ),
        output_field=models.JSONField(),
        db_persist=True,
        help_text="the metrics without problems, groups and passport",
    )
    correct_counts = models.GeneratedField(
        expression=models.Func(
            "metrics",
            template="jsonb_path_query_array(%(expressions)s, '$.per_problem[*].correct')",
            output_field=models.JSONField(),
        ),
        output_field=models.JSONField(),
        db_persist=True,
        help_text="correct samples of each problem, in the metrics' order",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]
        indexes = [
            # Who stands where on the leaderboard is read from it alone, not from the wide rows.
            models.Index(
                fields=["benchmark", "checkpoint"],
                name="evaluation_standing",
                condition=models.Q(metrics__isnull=False),
                include=["id", "run", "measurement_hash", "created_at", "pass_at_1"],
            )
        ]

    def __str__(self) -> str:
        return f"{self.checkpoint or self.role} on {self.benchmark}"

    def get_absolute_url(self) -> str:
        """The evaluation's page."""
        return reverse("leaderboard:evaluation", args=[self.pk])


class Stage(models.Model):
    """A step of a run. ``kind`` is a key of the stage registry (webapp/runs/stages.py)."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="stages")
    position = models.IntegerField()
    kind = models.CharField(max_length=20)
    title = models.CharField(max_length=120)
    evaluation = models.ForeignKey(
        Evaluation, null=True, blank=True, on_delete=models.CASCADE, related_name="stages"
    )
    state = models.CharField(max_length=20, choices=State, default=State.WAITING, db_index=True)
    queue = models.CharField(max_length=10, default="cpu", help_text="whose workers may do it")
    devices = models.PositiveSmallIntegerField(
        default=0, help_text="CUDA devices that a child of it needs, all on one host"
    )
    config = models.JSONField(default=dict)
    result = models.JSONField(default=dict, help_text="what the stage's last shard reported")
    done = models.BigIntegerField(default=0, help_text="units done, for the bar")
    total = models.BigIntegerField(default=0)
    unit = models.CharField(max_length=20, blank=True)
    tokens = models.BigIntegerField(default=0)
    tokens_per_second = models.FloatField(null=True, blank=True)
    done_before = models.BigIntegerField(
        default=0, help_text="units that were done before the present attempt began"
    )
    tokens_before = models.BigIntegerField(default=0, help_text="the same, of tokens")
    error = models.TextField(blank=True)
    log_tail = models.TextField(blank=True, help_text="the child's last lines")
    started_at = models.DateTimeField(
        null=True, blank=True, help_text="of the present attempt: a retry begins another"
    )
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["run", "position"]
        constraints = [models.UniqueConstraint(fields=["run", "position"], name="stage_position")]

    def __str__(self) -> str:
        return f"{self.run}: {self.title}"


class Shard(models.Model):
    """The leased unit of a stage's work. Only the lease's holder may change what counts."""

    stage = models.ForeignKey(Stage, on_delete=models.CASCADE, related_name="shards")
    index = models.IntegerField()
    work = models.JSONField(default=dict, help_text='e.g. {"problem_ids": [...]}')
    state = models.CharField(max_length=20, choices=State, default=State.QUEUED)
    lease_token = models.UUIDField(null=True, blank=True)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    leased_at = models.DateTimeField(
        null=True, blank=True, help_text="set with the lease's token, by ledger.sql"
    )
    usage = models.JSONField(
        default=dict, help_text="what the worker says that this lease took (ledger.Usage)"
    )
    not_before = models.DateTimeField(
        null=True, blank=True, help_text="not claimable earlier, after a transient failure"
    )
    worker = models.CharField(max_length=200, blank=True)
    attempts = models.IntegerField(default=0, help_text="leases so far")
    failures = models.IntegerField(default=0, help_text="of them, those that failed transiently")
    done = models.BigIntegerField(default=0)
    total = models.BigIntegerField(default=0)
    tokens = models.BigIntegerField(default=0)
    result = models.JSONField(default=dict)
    error = models.TextField(blank=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["stage", "index"]
        constraints = [models.UniqueConstraint(fields=["stage", "index"], name="shard_index")]
        indexes = [
            models.Index(fields=["state", "lease_expires_at"], name="shard_claimable"),
            # A claim looks for a stage's first open shard among thousands that are finished.
            models.Index(
                fields=["stage", "index"],
                name="shard_open",
                condition=models.Q(state__in=["queued", "running"]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.stage} #{self.index}"


class Segment(models.Model):
    """A sealed file of rows that the shard's lease holder delivered and the database accepted."""

    shard = models.ForeignKey(Shard, on_delete=models.CASCADE, related_name="segments")
    name = models.CharField(max_length=200)
    lease_token = models.UUIDField()
    sha256 = models.CharField(max_length=64)
    row_count = models.IntegerField()
    size_bytes = models.BigIntegerField()
    accepted_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["shard", "name"], name="segment_name")]

    def __str__(self) -> str:
        return self.name


class LedgerEntry(models.Model):
    """What one lease took: written by the database when the lease ends (ledger.sql), then kept."""

    class Ended(models.TextChoices):
        """How a lease ended."""

        FINISHED = "finished", "finished"
        RETRIED = "retried", "failed, tried again"
        FAILED = "failed", "failed for good"
        RELEASED = "released", "given back"
        CANCELLED = "cancelled", "cancelled"
        LOST = "lost", "lost with its worker"

    lease_token = models.UUIDField(unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    run = models.ForeignKey(Run, null=True, on_delete=models.SET_NULL, related_name="entries")
    stage = models.ForeignKey(Stage, null=True, on_delete=models.SET_NULL, related_name="entries")
    shard = models.ForeignKey(Shard, null=True, on_delete=models.SET_NULL, related_name="entries")
    kind = models.CharField(max_length=20, help_text="of the stage")
    worker = models.CharField(max_length=200)
    ended = models.CharField(max_length=10, choices=Ended)
    cause = models.CharField(
        max_length=20, blank=True,
        help_text="of what failed: transient, permanent, out_of_memory, limits, lost_lease",
    )  # fmt: skip
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField()
    wall_seconds = models.FloatField()
    device_seconds = models.FloatField(help_text="wall seconds × devices held")
    cpu_seconds = models.FloatField(help_text="of the child and its descendants")
    prompt_tokens = models.BigIntegerField()
    completion_tokens = models.BigIntegerField()
    asks_endpoint = models.BooleanField()
    endpoint_money = models.FloatField(
        null=True, help_text="by the prices of that moment; null: no endpoint, no price, no counts"
    )
    lost_share = models.FloatField(help_text="of all this: what another lease had to do again")

    class Meta:
        ordering = ["id"]
        indexes = [
            models.Index(fields=["user", "ended_at"], name="ledger_user"),
            models.Index(fields=["ended_at"], name="ledger_period"),
            models.Index(fields=["cause"], name="ledger_cause"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} by {self.worker}: {self.ended}"


class Completion(models.Model):
    """A completion's row: key, outcome, answer and counts; its text lies in the segment."""

    # Without an index of its own: the unique key begins with it.
    evaluation = models.ForeignKey(
        Evaluation, on_delete=models.CASCADE, related_name="completions", db_index=False
    )
    problem = models.ForeignKey("benchmarks.Problem", on_delete=models.PROTECT)
    sample = models.IntegerField()
    outcome = models.CharField(max_length=20, blank=True, help_text="blank until graded")
    answer = models.TextField(null=True, blank=True)
    reason = models.TextField(blank=True, help_text="why it was graded so")
    judged = models.JSONField(
        null=True, blank=True, help_text="of a program: verdict, tests, time, memory"
    )
    finish_reason = models.CharField(max_length=10)
    prompt_tokens = models.IntegerField(null=True)
    completion_tokens = models.IntegerField(null=True)
    segment = models.ForeignKey(Segment, on_delete=models.CASCADE)
    offset = models.BigIntegerField(help_text="of the row's line, in the decompressed segment")

    class Meta:
        ordering = ["problem", "sample"]
        constraints = [
            models.UniqueConstraint(
                fields=["evaluation", "problem", "sample"], name="completion_key"
            )
        ]
        indexes = [models.Index(fields=["evaluation", "outcome"], name="completion_outcome")]

    def __str__(self) -> str:
        return f"{self.problem} sample {self.sample}"


class KeptChats(models.Model):
    """Chats that a person uploaded for recipes: theirs, and in their quota, until they are swept.

    The file is there once for everybody; who uploaded it again has a row, too.
    """

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    path = models.CharField(max_length=100, db_index=True, help_text="in the store")
    size_bytes = models.BigIntegerField()
    kept_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-kept_at"]
        constraints = [models.UniqueConstraint(fields=["owner", "path"], name="chats_of_owner")]

    def __str__(self) -> str:
        return self.path


class TrainingPoint(models.Model):
    """One logged step of a train stage."""

    stage = models.ForeignKey(Stage, on_delete=models.CASCADE, related_name="points")
    step = models.IntegerField()
    values = models.JSONField(help_text="loss, learning_rate, grad_norm, tokens_per_second")

    class Meta:
        ordering = ["step"]
        constraints = [models.UniqueConstraint(fields=["stage", "step"], name="training_step")]

    def __str__(self) -> str:
        return f"step {self.step}"


class WorkerHeartbeat(models.Model):
    """A worker's last sign of life."""

    name = models.CharField(max_length=200, unique=True, help_text="host/process id")
    host = models.CharField(max_length=200, blank=True)
    queues = models.CharField(max_length=100, blank=True, help_text="comma-separated")
    doing = models.CharField(max_length=300, blank=True)
    draining = models.BooleanField(default=False, help_text="claims nothing more")
    started_at = models.DateTimeField(null=True)
    seen_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class DeviceRequest(models.Model):
    """A wish for devices of one host, for a child of one stage: granted whole, oldest first.

    While it waits it belongs to the host: whichever worker turns up first for the stage takes it.
    """

    host = models.CharField(max_length=200)
    stage = models.ForeignKey(Stage, on_delete=models.CASCADE, related_name="device_requests")
    count = models.PositiveSmallIntegerField()
    worker = models.CharField(max_length=200, blank=True, help_text="who holds the devices")
    created_at = models.DateTimeField()
    granted_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(help_text="not renewed by then: whoever asked is gone")

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["host", "stage"], name="device_request_waiting",
                condition=models.Q(granted_at=None),
            )
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"{self.count} devices of {self.host}"


class Device(models.Model):
    """A CUDA device of a host, what it was last seen doing, and which request holds it."""

    host = models.CharField(max_length=200)
    name = models.CharField(max_length=100, help_text="as CUDA_VISIBLE_DEVICES takes it")
    model = models.CharField(max_length=100, blank=True)
    memory_total_bytes = models.BigIntegerField(null=True, blank=True)
    memory_used_bytes = models.BigIntegerField(null=True, blank=True)
    utilisation_percent = models.PositiveSmallIntegerField(null=True, blank=True)
    sampled_at = models.DateTimeField()
    request = models.ForeignKey(
        DeviceRequest, null=True, blank=True, on_delete=models.SET_NULL, related_name="devices"
    )

    class Meta:
        ordering = ["host", "id"]
        constraints = [models.UniqueConstraint(fields=["host", "name"], name="device_name")]

    def __str__(self) -> str:
        return f"{self.host} {self.name}"


class Upkeep(models.Model):
    """When the next round of upkeep is due: one row, and whoever moves it on does the round."""

    name = models.CharField(max_length=20, unique=True)
    due_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name
