"""An installation of a measurement's own: embedded servers and an account, gone afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from webapp.core.models import User


@contextmanager
def installation() -> Iterator[tuple[Path, User]]:
    """Its RETORT_VAR and an account; Django is set up for it, and so are children.

    Once in a process. Whatever database and broker the environment names are left alone.
    """
    var = Path(tempfile.mkdtemp(prefix="retort-bench-"))
    var.chmod(0o711)
    for name in ("DATABASE_URL", "CELERY_BROKER_URL"):
        os.environ.pop(name, None)
    os.environ |= {"RETORT_VAR": str(var), "DJANGO_SETTINGS_MODULE": "webapp.config.settings"}
    import django

    django.setup()
    from django.core.management import call_command

    from webapp.config.embedded import Servers
    from webapp.core.models import User

    servers = Servers(var)
    try:
        servers.ensure_running()
        call_command("migrate", verbosity=0)
        yield var, User.objects.create_user("bench")
    finally:
        servers.stop()
        shutil.rmtree(var, ignore_errors=True)
