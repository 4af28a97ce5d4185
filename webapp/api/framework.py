"""What the API is made of: django-ninja's names, whoever owns the module's first file.

Two distributions bring a package ``ninja``: django-ninja, and the build tool that vLLM names among
its needs. They share the folder, and ``ninja/__init__.py`` is that of the one installed last. The
files beside it are django-ninja's alone, so its names are imported from where they are defined;
the one that its own files expect in the package is put there first.
"""

from __future__ import annotations

import ninja
from ninja.files import UploadedFile

if not hasattr(ninja, "UploadedFile"):
    setattr(ninja, "UploadedFile", UploadedFile)  # noqa: B010 - of either package, for type checks

from ninja.errors import HttpError, Throttled, ValidationError
from ninja.main import NinjaAPI
from ninja.openapi.schema import OpenAPISchema
from ninja.operation import Operation
from ninja.params import File, Form, Query
from ninja.parser import Parser
from ninja.router import Router
from ninja.schema import Schema
from ninja.throttling import SimpleRateThrottle
from ninja.utils import check_csrf

__all__ = [
    "File", "Form", "HttpError", "NinjaAPI", "OpenAPISchema", "Operation", "Parser", "Query",
    "Router", "Schema", "SimpleRateThrottle", "Throttled", "UploadedFile", "ValidationError",
    "check_csrf",
]  # fmt: skip
