"""The API's addresses, its schema and its page."""

from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.urls import URLPattern, include, path

from webapp.api import docs_views
from webapp.api.auth import for_tokens
from webapp.api.service import api
from webapp.checkpoints import tus

app_name = "api"


# The framework's own root page aside. Operations find out themselves who asks, and answer 401 where
# nobody is known.
_operations = [
    each for each in api.urls[0] if isinstance(each, URLPattern) and each.name != "api-root"
]
for _each in _operations:
    login_not_required(_each.callback)

urlpatterns = [
    path("docs/", docs_views.docs, name="docs"),
    path("v1/openapi.json", docs_views.openapi, name="openapi"),
    path("v1/uploads/<uuid:upload>/files/", for_tokens(tus.files), name="tus-files"),
    path("v1/uploads/<uuid:upload>/files/<uuid:pk>/", for_tokens(tus.one_file), name="tus-file"),
    path("v1/", include((_operations, "v1"))),
    path("v1/<path:rest>", docs_views.nothing, name="nothing"),
]
