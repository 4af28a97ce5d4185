"""A real worker takes uploads in: without a doorbell, and after another worker has died."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.webapp.models import model_files
from webapp.checkpoints import uploads
from webapp.checkpoints.models import Checkpoint, Upload

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.slow
def test_a_worker_finds_an_upload_and_another_one_follows_a_dead_one(
    user: Any, start_worker: Callable[..., Any], wait_until: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("webapp.config.celery.ask_to_take_in", lambda: None)  # lost
    upload = uploads.begin(user, "model")
    for name, data in model_files().items():
        uploads.append(uploads.declare(upload, name, len(data)), 0, io.BytesIO(data))
    uploads.submit(upload)
    first = start_worker()
    wait_until(lambda: Upload.objects.exclude(lease_token=None).exists())
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert Upload.objects.get().state == Upload.State.CHECKING
    start_worker()
    wait_until(lambda: not Upload.objects.filter(state=Upload.State.CHECKING).exists(), 180)
    found = Upload.objects.get()
    assert found.state == Upload.State.REGISTERED, found.reason
    assert found.attempts == 2
    assert Checkpoint.objects.get().content_hash
    # Its files go after the row says what became of it.
    wait_until(lambda: not uploads.folder_of(upload.pk).exists())
