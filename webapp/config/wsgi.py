"""The web server's entry: `granian --interface wsgi webapp.config.wsgi:application`."""

import gc
import os

from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

from webapp.config.embedded import ensure_running

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.config.settings")
ensure_running()
application = get_wsgi_application()

from webapp.monitoring import latency  # noqa: E402

latency.forget_the_dead()

# What is loaded stays: so the collector of garbage need not look through it at every page, and has
# little to find in what a page makes.
_ = get_resolver().url_patterns  # every view is imported now, not by the first requests
gc.freeze()
gc.set_threshold(10_000, 20, 20)
