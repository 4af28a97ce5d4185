"""What workers do for uploads: fetch what lies elsewhere, verify what is here, register it.

The upload's row is the truth and the message a doorbell, as for shards: a worker leases a row by
compare-and-set, renews the lease while it works, and what it found counts only under that lease.
A worker that dies is followed by another one, who goes on where the files end.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DataError, transaction
from django.db.models import F, Q, QuerySet, Value
from django.db.models.functions import Now

from distiller.checkpoints import CheckpointInfo
from distiller.errors import CheckpointError
from distiller.verifying import AbandonedError, verify_in_child
from evaluator.errors import StoreError
from webapp.checkpoints import fetching, hub, uploads
from webapp.checkpoints.models import Checkpoint, Upload, UploadFile
from webapp.checkpoints.services import check_name, refused_folder, register_verified
from webapp.config import celery
from webapp.core import store
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.core.text import storable
from webapp.projects.access import place_for
from webapp.projects.models import Project

_WORK = (Upload.State.FETCHING, Upload.State.CHECKING)

logger = logging.getLogger(__name__)


class LostError(Exception):
    """The upload was deleted, or is another worker's by now: drop everything."""


@dataclass(frozen=True, slots=True)
class Job:
    """One leased upload."""

    upload_id: uuid.UUID
    token: uuid.UUID


def begin_from_hub(
    owner: User, name: str, repository: str, revision: str, project: Project | None = None
) -> Upload:
    """Have a worker fetch a model from the hub. Raises UserError naming the field."""
    repository = hub.checked_repository(repository)
    revision = hub.checked_revision(revision)
    return _begin(
        owner=owner, project=place_for(owner, project), name=check_name(name),
        source=Upload.Source.HUB, origin=repository, revision=revision,
    )  # fmt: skip


def begin_from_folder(
    owner: User, name: str, folder: str, project: Project | None = None
) -> Upload:
    """Have a worker copy a folder below RETORT_IMPORT_ROOT, for administrators.

    Raises UserError naming the field.
    """
    if not owner.is_staff:
        raise UserError("folder: only administrators take checkpoints from the server's disk.")
    relative = fetching.checked_folder(folder)
    return _begin(
        owner=owner, project=place_for(owner, project), name=check_name(name),
        source=Upload.Source.FOLDER, origin=relative,
    )  # fmt: skip


def _begin(**values: Any) -> Upload:
    with transaction.atomic():
        upload = Upload.objects.create(state=Upload.State.FETCHING, **values)
        transaction.on_commit(celery.ask_to_take_in, robust=True)
    return upload


def is_waiting() -> bool:
    """Whether an upload waits for a worker, or its worker has died."""
    return _claimable().exists()


def claim(worker: str) -> Job | None:
    """Lease the upload that has waited longest; None where there is none."""
    from webapp.runs.models import WorkerHeartbeat

    if WorkerHeartbeat.objects.filter(name=worker, draining=True).exists():
        return None
    with transaction.atomic():
        waiting = _claimable().select_for_update(skip_locked=True).order_by("created_at")
        if store.is_remote():  # bytes that came to another host are another's to look at
            found = next((each for each in waiting if _is_here(each)), None)
        else:
            found = waiting.first()
        if found is None:
            return None
        job = Job(found.pk, uuid.uuid4())
        Upload.objects.filter(pk=found.pk).update(
            lease_token=job.token, lease_expires_at=_lease_end(), attempts=F("attempts") + 1
        )
    return job


def renew(job: Job) -> bool:
    """Prolong the lease; False when the upload is no longer ours."""
    return bool(_held(job).update(lease_expires_at=_lease_end()))


def carry_out(job: Job, wanted: Callable[[], bool] = lambda: True) -> None:
    """Do the upload's next step: fetch its files, or verify and register them.

    Whatever is wrong with the files ends in the state ``refused`` with the reason. Once ``wanted``
    says no, the upload is given back as it is.
    """
    upload = _held(job).select_related("owner").first()
    if upload is None:
        return
    try:
        if upload.attempts > settings.RETORT_MAX_FAILURES + upload.failures:
            raise UserError("files: workers died while they looked at it; try a smaller model.")
        if upload.state == Upload.State.FETCHING:
            _fetch(upload, wanted)
            _next_step(job)
        else:
            _verify(upload, job, wanted)
    except AbandonedError:
        _held(job).update(lease_token=None, lease_expires_at=None, attempts=F("attempts") - 1)
    except UserError as error:
        _refuse(job, error.sentence)
    except (DataError, UnicodeEncodeError) as error:
        # No other try would mend what a file says: without an end here it would be looked at again.
        logger.warning("an upload holds what the database does not take", exc_info=error)
        _refuse(job, "files: a value in them is none that can be kept; save the model again.")
    except (fetching.TransientError, StoreError, OSError) as error:
        _try_again(job, upload, error)
    except (LostError, Upload.DoesNotExist, UploadFile.DoesNotExist):
        logger.info("an upload was deleted, or taken over, while it was worked on")


def _claimable() -> QuerySet[Upload]:
    free = Q(lease_token=None) | Q(lease_expires_at__lt=Now())
    due = Q(not_before=None) | Q(not_before__lte=Now())
    return Upload.objects.filter(free & due, state__in=_WORK)


def _is_here(upload: Upload) -> bool:
    return upload.state == Upload.State.FETCHING or uploads.folder_of(upload.pk).exists()


def _held(job: Job) -> QuerySet[Upload]:
    return Upload.objects.filter(pk=job.upload_id, lease_token=job.token, state__in=_WORK)


def _lease_end() -> Any:
    return Now() + Value(timedelta(seconds=settings.RETORT_LEASE_SECONDS))


def _fetch(upload: Upload, wanted: Callable[[], bool]) -> None:
    try:
        if upload.source == Upload.Source.HUB:
            fetching.from_hub(upload, wanted)
        else:
            fetching.from_folder(upload, wanted)
    except uploads.BusyError as error:  # the worker before us is not quite dead
        raise fetching.TransientError(str(error)) from None


def _next_step(job: Job) -> None:
    """All files are here: their verification is anybody's."""
    with transaction.atomic():
        moved = _held(job).update(
            state=Upload.State.CHECKING, lease_token=None, lease_expires_at=None, attempts=0,
            failures=0, reason="",
        )  # fmt: skip
        if moved:
            transaction.on_commit(celery.ask_to_take_in, robust=True)


def _verify(upload: Upload, job: Job, wanted: Callable[[], bool]) -> None:
    folder = uploads.arranged(upload)
    try:
        info = verify_in_child(folder, memory_bytes=settings.RETORT_VERIFY_BYTES, wanted=wanted)
    except CheckpointError as error:
        raise refused_folder(error, folder) from None
    store.publish(f"checkpoints/{info.content_hash}", folder)
    _register(upload, job, folder, info)


def _register(upload: Upload, job: Job, folder: Path, info: CheckpointInfo) -> Checkpoint:
    with transaction.atomic():
        if not _held(job).select_for_update().exists():
            raise LostError
        checkpoint = register_verified(
            owner=upload.owner, project=upload.project, name=upload.name, folder=folder, info=info
        )
        uploads.close(
            upload, Upload.State.REGISTERED, checkpoint=checkpoint, lease_token=None, reason=""
        )
    return checkpoint


def _refuse(job: Job, sentence: str) -> None:
    with transaction.atomic():
        upload = _held(job).select_for_update().first()
        if upload is not None:
            uploads.close(upload, Upload.State.REFUSED, reason=storable(sentence), lease_token=None)


def _try_again(job: Job, upload: Upload, error: Exception) -> None:
    """Later, and a few times only; the reason stands on the upload's page meanwhile."""
    logger.warning("an upload is tried again", exc_info=error)
    sentence = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
    if upload.failures + 1 >= settings.RETORT_MAX_FAILURES:
        _refuse(job, f"files: {sentence}; tried {upload.failures + 1} times. Begin again later.")
        return
    pause = timedelta(seconds=settings.RETORT_RETRY_SECONDS * 2**upload.failures)
    _held(job).update(
        failures=F("failures") + 1, not_before=Now() + Value(pause), lease_token=None,
        lease_expires_at=None, reason=storable(f"{sentence}; it is tried again."),
    )  # fmt: skip
