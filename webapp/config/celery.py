"""The one Celery app. A message is a doorbell: it carries a stage's id and nothing else."""

from __future__ import annotations

import os

from celery import Celery
from django.conf import settings
from kombu.exceptions import ChannelError, OperationalError

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.config.settings")

# The queues. Untrusted programs are judged by workers of ``judge``, who may do nothing else;
# ``upkeep`` is for tidying up.
GPU, CPU, JUDGE, UPKEEP = QUEUES = ("gpu", "cpu", "judge", "upkeep")
RUN_STAGE = "workers.run_stage"
TIDY = "workers.tidy"
SETTLE = "workers.settle"
TAKE_IN = "workers.take_in"
MAX_WAITING = 50  # doorbells of a queue; more of them would wake nobody sooner
BROKER_SECONDS = 5.0  # for connecting to it, and for each of its answers

app = Celery("retort", broker=settings.CELERY_BROKER_URL, set_as_current=True)
app.conf.update(
    accept_content=["json"],
    task_serializer="json",
    task_ignore_result=True,
    task_acks_late=False,  # the row is the truth: a lost message is rung again by the reaper
    task_default_queue=CPU,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,  # a broker that is away may come back any time
    # RabbitMQ closes the channel of a worker that has long been busy (its consumer_timeout, half an
    # hour): the worker shall open another one instead of ending.
    broker_channel_error_retry=True,
    # Redis: a broker that hangs, or that a network cut off, says nothing at all; whoever launches a
    # run or gives signs of life must not wait for it without end.
    broker_transport_options={
        "visibility_timeout": 3600,
        "socket_timeout": BROKER_SECONDS,
        "socket_connect_timeout": BROKER_SECONDS,
        "socket_keepalive": True,
    },
    timezone="UTC",
    enable_utc=True,
)


def ring(stage_id: int, queue: str) -> None:
    """Tell a worker of ``queue`` that the stage may have something to do.

    Messages do not expire: whether one is late would be judged by two hosts' clocks.
    """
    app.send_task(RUN_STAGE, args=[stage_id], queue=queue, ignore_result=True)


def ask_to_tidy() -> None:
    """Ask a worker of the upkeep queue to tidy up."""
    app.send_task(TIDY, queue=UPKEEP, ignore_result=True)


def ask_to_settle() -> None:
    """Ask a worker of the upkeep queue to go on with runs whose programs have been judged."""
    app.send_task(SETTLE, queue=UPKEEP, ignore_result=True)


def ask_to_take_in() -> None:
    """Ask a worker of the cpu queue to look at the uploads that wait for one."""
    app.send_task(TAKE_IN, queue=CPU, ignore_result=True)


def check_broker(seconds: float) -> None:
    """Connect anew and hang up; raises what the broker's library raises where that fails."""
    with app.connection_for_write(connect_timeout=seconds) as connection:
        connection.ensure_connection(max_retries=1, timeout=seconds)


def is_full(queue: str) -> bool:
    """Whether so many messages wait in ``queue`` already that another one changes nothing.

    By a connection of its own: one of the pool's stays broken when the broker has been away. Raises
    kombu's OperationalError while it is.
    """
    with app.connection_for_write(connect_timeout=BROKER_SECONDS) as connection:
        connection.ensure_connection(max_retries=1, timeout=BROKER_SECONDS)
        try:
            waiting = connection.default_channel.queue_declare(queue, passive=True).message_count
        except ChannelError:
            return False  # nobody has used the queue yet
        except connection.connection_errors as error:
            raise OperationalError(str(error)) from error
    return bool(waiting >= MAX_WAITING)
