"""Settings, typed and read from the environment: README.md and docs/operations.md tell of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

from webapp.config import embedded, secrets

BASE_DIR: Path = Path(__file__).resolve().parent.parent.parent

env = environ.Env()

# Everything that the product writes lies under this folder.
RETORT_VAR: Path = Path(env.str("RETORT_VAR", default=str(BASE_DIR / "var"))).absolute()

DEBUG: bool = env.bool("DEBUG", default=False)
SECRET_KEY: str = env.str("SECRET_KEY", default="") or secrets.secret_key(RETORT_VAR)
# Secrets that still verify and unseal what SECRET_KEY's predecessors made.
SECRET_KEY_FALLBACKS: list[str] = env.list("SECRET_KEY_FALLBACKS", default=[])
# What the endpoints' keys are encrypted under, the newest first; without any, SECRET_KEY.
RETORT_ENCRYPTION_KEYS: list[str] = env.list("RETORT_ENCRYPTION_KEYS", default=[])
ALLOWED_HOSTS: list[str] = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS: list[str] = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django_htmx",
    "webapp.core",
    "webapp.projects",
    "webapp.checkpoints",
    "webapp.endpoints",
    "webapp.benchmarks",
    "webapp.runs",
    "webapp.leaderboard",
    "webapp.housekeeping",
    "webapp.notifications",
    "webapp.api",
]

MIDDLEWARE: list[str] = [
    "webapp.monitoring.requests.RequestMiddleware",
    "webapp.core.bodies.BodyMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "webapp.core.middleware.ContentSecurityPolicyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "webapp.core.middleware.SignedInMiddleware",
    "webapp.monitoring.requests.UserIdMiddleware",
    "webapp.core.sessions.SeenMiddleware",
    "webapp.core.audit.AuditMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "webapp.config.urls"
WSGI_APPLICATION = "webapp.config.wsgi.application"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "webapp" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# --- accounts

AUTH_USER_MODEL = "core.User"
AUTH_PASSWORD_VALIDATORS: list[dict[str, Any]] = [
    {"NAME": f"django.contrib.auth.password_validation.{name}", "OPTIONS": options}
    for name, options in (
        ("UserAttributeSimilarityValidator", {}),
        ("MinimumLengthValidator", {"min_length": 10}),
        ("CommonPasswordValidator", {}),
        ("NumericPasswordValidator", {}),
    )
]
PASSWORD_RESET_TIMEOUT = 24 * 3600  # seconds; a link for a new password also works only once
SESSION_ENGINE = "webapp.core.sessions"
# A session that is not used for so long has ended.
RETORT_SESSION_HOURS: float = env.float("RETORT_SESSION_HOURS", default=14 * 24.0)
SESSION_COOKIE_AGE = int(3600 * RETORT_SESSION_HOURS)
LOGIN_URL = "core:login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "core:login"

# --- database and broker: embedded ones unless a URL names others

DATABASES: dict[str, dict[str, Any]] = {
    "default": env.db_url("DATABASE_URL")
    if env.str("DATABASE_URL", default="")
    else {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": embedded.DATABASE,
        "USER": embedded.DATABASE_USER,
        "HOST": str(embedded.Servers(RETORT_VAR).postgres_sockets),
    },
}
DATABASES["default"].update(CONN_MAX_AGE=60, CONN_HEALTH_CHECKS=True)
# A server that falls silent (a pulled cable) is given up before a lease runs out, not after TCP's
# quarter of an hour. https://www.postgresql.org/docs/current/libpq-connect.html
_named: dict[str, Any] = DATABASES["default"].get("OPTIONS", {})
DATABASES["default"]["OPTIONS"] = {
    "connect_timeout": 10, "tcp_user_timeout": 20_000,  # seconds; milliseconds
    "keepalives_idle": 20, "keepalives_interval": 5, "keepalives_count": 3,
} | _named  # fmt: skip
# The server's end does likewise: it would keep the locks of a transaction that was cut off for
# hours, and claims pass a locked shard over. What DATABASE_URL says comes later and wins.
# https://www.postgresql.org/docs/current/runtime-config-connection.html
_KEEPALIVE = {
    "tcp_keepalives_idle": "20", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20000",
}  # fmt: skip
DATABASES["default"]["OPTIONS"]["options"] = " ".join(
    [*(f"-c {name}={value}" for name, value in _KEEPALIVE.items()), _named.get("options", "")]
).strip()
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CELERY_BROKER_URL: str = (
    env.str("CELERY_BROKER_URL", default="") or embedded.Servers(RETORT_VAR).broker_url
)

# --- files

# The store. Where hosts share a disk it is mounted at the same path on each of them.
MEDIA_ROOT: Path = Path(env.str("RETORT_FILES", default=str(RETORT_VAR / "files"))).absolute()
MEDIA_URL = "files/"
# A bucket instead of a shared disk: RETORT_FILES then holds this host's copies of what is in it, of
# which those used least recently go when they take more than so much (0: no bound).
RETORT_S3_BUCKET: str = env.str("RETORT_S3_BUCKET", default="")
RETORT_S3_ENDPOINT_URL: str = env.str("RETORT_S3_ENDPOINT_URL", default="")
RETORT_S3_REGION: str = env.str("RETORT_S3_REGION", default="")
RETORT_CACHE_BYTES: int = env.int("RETORT_CACHE_BYTES", default=500_000_000_000)
STORAGES: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
if RETORT_S3_BUCKET:
    from botocore.config import Config

    # Credentials come as boto3 finds them: AWS_ACCESS_KEY_ID, a profile, the machine's role.
    STORAGES["default"] = {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "bucket_name": RETORT_S3_BUCKET,
            "endpoint_url": RETORT_S3_ENDPOINT_URL or None,
            "region_name": RETORT_S3_REGION or None,
            "client_config": Config(
                connect_timeout=10,
                read_timeout=60,
                retries={"mode": "standard"},  # seconds
            ),
        },
    }
STATIC_URL = "static/"
STATICFILES_DIRS: list[Path] = [BASE_DIR / "webapp" / "static"]
# Static files are served by whitenoise straight from where they lie: no collectstatic step.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH: bool = DEBUG

# --- security

# A page may load nothing from elsewhere, and runs only scripts whose tag has the answer's nonce.
CONTENT_SECURITY_POLICY: dict[str, str] = {
    "default-src": "'none'",
    "script-src": "'nonce-{nonce}'",
    "script-src-attr": "'none'",
    "style-src": "'self'",
    "font-src": "'self'",
    "img-src": "'self' data: blob:",
    "connect-src": "'self'",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
}
# What is no page does nothing, even where a browser is made to show it.
CONTENT_SECURITY_POLICY_OF_FILES: dict[str, str] = {
    "default-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "sandbox": "",
}
X_FRAME_OPTIONS = "DENY"
# Whether users may have endpoints in this host's own networks (loopback included) asked.
RETORT_ALLOW_PRIVATE_ENDPOINTS: bool = env.bool("RETORT_ALLOW_PRIVATE_ENDPOINTS", default=DEBUG)
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True  # pages carry the CSRF token themselves
# Set behind a TLS-terminating proxy that passes X-Forwarded-Proto.
RETORT_HTTPS: bool = env.bool("RETORT_HTTPS", default=False)
SESSION_COOKIE_SECURE: bool = RETORT_HTTPS
CSRF_COOKIE_SECURE: bool = RETORT_HTTPS
SECURE_SSL_REDIRECT: bool = RETORT_HTTPS
# So many proxies of our own stand in front, each of which adds to X-Forwarded-For whom it was asked
# by: who asks is read from there, for the audit log and against the guessing of passwords.
RETORT_PROXIES: int = env.int("RETORT_PROXIES", default=1 if RETORT_HTTPS else 0)
# Probes ask the server itself, without the proxy that ends TLS.
SECURE_REDIRECT_EXEMPT: list[str] = [r"^(healthz|readyz|metrics)$"]
# For so long a browser that was here once comes by TLS only.
SECURE_HSTS_SECONDS: int = env.int("RETORT_HSTS_SECONDS", default=31_536_000 if RETORT_HTTPS else 0)
# Whether the domain's other hosts keep to TLS is not this installation's to promise unasked.
SECURE_HSTS_INCLUDE_SUBDOMAINS: bool = env.bool("RETORT_HSTS_SUBDOMAINS", default=False)
SILENCED_SYSTEM_CHECKS: list[str] = ["security.W005", "security.W021"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if RETORT_HTTPS else None

# An uploaded checkpoint may have so many files, each with its path beside it: the largest models
# lie in some hundred shards, more than Django lets through by itself.
RETORT_UPLOAD_FILES = 1000
DATA_UPLOAD_MAX_NUMBER_FILES = RETORT_UPLOAD_FILES + 1  # one too many gets a sentence of its own
DATA_UPLOAD_MAX_NUMBER_FIELDS = 2 * RETORT_UPLOAD_FILES + 100
# What one person's checkpoints, unfinished uploads and chats may take together; 0: no limit.
RETORT_UPLOAD_QUOTA_BYTES: int = env.int("RETORT_UPLOAD_QUOTA_BYTES", default=0)

# --- the API

# Requests of one person that a web process answers, as 1200/m; more are told to wait.
RETORT_API_RATE: str = env.str("RETORT_API_RATE", default="1200/m")

# --- notifications

# Where people reach this installation: links in mails and webhooks begin with it.
RETORT_URL: str = env.str("RETORT_URL", default="http://127.0.0.1:8000")
# smtp://user:password@host:25, smtp+tls://… (STARTTLS), smtp+ssl://…; empty: nobody gets mail.
EMAIL_CONFIGURED: bool = bool(env.str("EMAIL_URL", default=""))
if EMAIL_CONFIGURED:
    _mail = env.email_url("EMAIL_URL")
    EMAIL_BACKEND: str = _mail["EMAIL_BACKEND"]
    EMAIL_HOST: str = _mail["EMAIL_HOST"]
    EMAIL_PORT: int = _mail["EMAIL_PORT"]
    EMAIL_HOST_USER: str = _mail["EMAIL_HOST_USER"] or ""
    EMAIL_HOST_PASSWORD: str = _mail["EMAIL_HOST_PASSWORD"] or ""
    EMAIL_USE_TLS: bool = _mail.get("EMAIL_USE_TLS", False)
    EMAIL_USE_SSL: bool = _mail.get("EMAIL_USE_SSL", False)
DEFAULT_FROM_EMAIL: str = env.str("DEFAULT_FROM_EMAIL", default="retort@localhost")

# Memory that looking at an uploaded checkpoint may take: its tokenizer and template are not ours.
RETORT_VERIFY_BYTES: int = env.int("RETORT_VERIFY_BYTES", default=6_000_000_000)
# Where models are fetched from by their id.
RETORT_HUB: str = env.str("HF_ENDPOINT", default="") or "https://huggingface.co"
# A folder of this server from which administrators may take checkpoints; blank: none.
RETORT_IMPORT_ROOT: str = env.str("RETORT_IMPORT_ROOT", default="")

# --- housekeeping (0 days: kept for ever)

# An upload that gets no bytes for so long is forgotten, a refused one with its reason too.
RETORT_KEEP_UPLOAD_DAYS: float = env.float("RETORT_KEEP_UPLOAD_DAYS", default=7.0)
# What a run that ended needs only to go on (resume state, logs) is removed after so long.
RETORT_KEEP_WORK_DAYS: float = env.float("RETORT_KEEP_WORK_DAYS", default=30.0)
# What people did is kept in the audit log for so long.
RETORT_KEEP_AUDIT_DAYS: float = env.float("RETORT_KEEP_AUDIT_DAYS", default=730.0)
# What no row refers to is removed from the file store after so long.
RETORT_GARBAGE_HOURS: float = env.float("RETORT_GARBAGE_HOURS", default=24.0)

# --- language, time

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

# --- work

# A lease that is not renewed for so long is taken over by another worker.
RETORT_LEASE_SECONDS: float = env.float("RETORT_LEASE_SECONDS", default=60.0)
# How often the reaper looks for work that nobody was told of, or that a dead worker left behind.
RETORT_REAP_SECONDS: float = env.float("RETORT_REAP_SECONDS", default=15.0)
# After a transient failure a shard waits so long, twice as long the next time.
RETORT_RETRY_SECONDS: float = env.float("RETORT_RETRY_SECONDS", default=10.0)
# On a host without a CUDA device, the CPU does stages of the gpu queue.
RETORT_GPU_QUEUE_ON_CPU: bool = env.bool("RETORT_GPU_QUEUE_ON_CPU", default=False)
# The queues that workers of this host serve; judge only, for workers of untrusted programs.
RETORT_QUEUES: list[str] = env.list("RETORT_QUEUES", default=["gpu", "cpu", "judge", "upkeep"])
# What this host is called in workers' names and on the workers page; blank: its hostname.
RETORT_HOST: str = env.str("RETORT_HOST", default="")
# Shards of one person's runs done at a time, unless the account says otherwise; 0: no limit.
RETORT_USER_SHARDS: int = env.int("RETORT_USER_SHARDS", default=0)
# For so long a loaded model goes on with its stage before runs of other people have their turn.
RETORT_STICKY_SECONDS: float = env.float("RETORT_STICKY_SECONDS", default=300.0)
# Tries of a shard that fails in a way that another try may mend.
RETORT_MAX_FAILURES: int = env.int("RETORT_MAX_FAILURES", default=3)
# A child that reports nothing for so long is ended and its shard tried again; 0: never.
RETORT_IDLE_SECONDS: float = env.float("RETORT_IDLE_SECONDS", default=3600.0)
# A shard that takes so long fails its run; 0: never.
RETORT_WALL_SECONDS: float = env.float("RETORT_WALL_SECONDS", default=0.0)
# Processes that a grade or filter stage may use.
RETORT_STAGE_JOBS: int = env.int("RETORT_STAGE_JOBS", default=2)

# --- costs

# What an hour of a device, and of a CPU, costs here; without a price its money stays blank.
RETORT_DEVICE_HOUR_PRICE: float | None = env.float("RETORT_DEVICE_HOUR_PRICE", default=None)
RETORT_CPU_HOUR_PRICE: float | None = env.float("RETORT_CPU_HOUR_PRICE", default=None)
# Of those prices and of the endpoints', shown beside sums.
RETORT_CURRENCY: str = env.str("RETORT_CURRENCY", default="USD")

# --- monitoring

# Whoever sends it as a bearer token may read /metrics; without one, only this host itself may.
RETORT_METRICS_TOKEN: str = env.str("RETORT_METRICS_TOKEN", default="")
# Here the web processes of this host count together; prometheus_client looks when it is imported.
os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str(RETORT_VAR / "metrics"))

# --- logs: a line per event on standard error, as a JSON object or, for people, as text

RETORT_LOG_FORMAT: str = env.str("RETORT_LOG_FORMAT", default="text" if DEBUG else "json")
if RETORT_LOG_FORMAT not in {"json", "text"}:
    raise ImproperlyConfigured(f"RETORT_LOG_FORMAT: {RETORT_LOG_FORMAT!r}; use json or text.")
# Struck out, should a library ever log one.
_SECRETS: list[str] = [SECRET_KEY, *SECRET_KEY_FALLBACKS, *secrets.named_in(os.environ)]

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"ids": {"()": "webapp.core.logs.Ids"}},
    "formatters": {
        "json": {"()": "webapp.core.logs.JsonFormatter", "secrets": _SECRETS},
        "text": {"()": "webapp.core.logs.TextFormatter", "secrets": _SECRETS},
    },
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler", "formatter": RETORT_LOG_FORMAT, "filters": ["ids"],
        },
    },
    "root": {"handlers": ["stderr"], "level": env.str("LOG_LEVEL", default="INFO")},
    "loggers": {
        "django": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        # A doorbell that finds nothing to do is not worth a line.
        "celery": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "django.server": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
    },
}  # fmt: skip
