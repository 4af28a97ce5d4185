"""The product's settings over a private folder of this test session, with its own servers.

All processes of a session (those of pytest-xdist, workers started by tests) inherit the folder
through the environment; who made it removes it at the end.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

if "RETORT_TEST_VAR" not in os.environ:
    folder = Path(tempfile.mkdtemp(prefix="retort-test-"))
    folder.chmod(0o711)  # as root, PostgreSQL runs as another user, who has to pass through
    os.environ["RETORT_TEST_VAR"] = str(folder)
    maker = os.getpid()

    def remove() -> None:
        if os.getpid() == maker:
            shutil.rmtree(folder)

    atexit.register(remove)

# Whatever server the developer's environment names, tests never touch it.
os.environ["RETORT_VAR"] = os.environ["RETORT_TEST_VAR"]
for name in (
    "DATABASE_URL",
    "CELERY_BROKER_URL",
    "SECRET_KEY",
    "DEBUG",
    "RETORT_FILES",
    "RETORT_S3_BUCKET",
):
    os.environ.pop(name, None)

from webapp.config.settings import *  # noqa: E402, F403

# Databases of pytest-xdist's processes are apart, so their doorbells have to be too.
CELERY_BROKER_URL += "?virtual_host=" + os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]  # noqa: F405
RETORT_ALLOW_PRIVATE_ENDPOINTS = True
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
RETORT_GPU_QUEUE_ON_CPU = True
