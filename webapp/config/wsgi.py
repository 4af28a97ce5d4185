"""The web server's entry: `granian --interface wsgi webapp.config.wsgi:application`."""

import os

from django.core.wsgi import get_wsgi_application

from webapp.config.embedded import ensure_running

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.config.settings")
ensure_running()
application = get_wsgi_application()

from webapp.monitoring import latency  # noqa: E402

latency.forget_the_dead()
