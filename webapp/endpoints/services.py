"""Registering, changing, testing and deleting endpoints; what a stage's child is told of one."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.db import IntegrityError, transaction

from evaluator.engines.addresses import is_public
from evaluator.engines.endpoint import check_key, checked_url
from evaluator.engines.probe import Probe, probe
from evaluator.errors import InputError
from webapp.checkpoints.models import Checkpoint
from webapp.checkpoints.services import check_name, name_taken
from webapp.core import sealing
from webapp.core.errors import UserError
from webapp.core.models import User
from webapp.endpoints.models import Endpoint
from webapp.projects.access import place_for
from webapp.projects.models import Project
from webapp.runs.models import FINAL_STATES, Run, Stage
from webapp.runs.naming import told_runs

KEY_VARIABLE = "RETORT_ENDPOINT_KEY"  # of the child's environment
MOST_CONCURRENT = 1024
_LONGEST_KEY = 4096


def register(
    *,
    owner: User,
    project: Project | None = None,
    name: str,
    base_url: str,
    model: str,
    key: str = "",
    concurrency: int = 64,
    input_price: float | None = None,
    output_price: float | None = None,
) -> Endpoint:
    """Take an endpoint in. Raises UserError naming the field; nothing is asked of it yet."""
    project = place_for(owner, project)
    name = check_name(name)
    url = _checked_url(base_url)
    model = model.strip()
    if not model or len(model) > 200 or not model.isprintable():
        raise UserError("model: give the name by which it is served, in one line.", "model")
    try:
        with transaction.atomic():
            return Endpoint.objects.create(
                checkpoint=Checkpoint.objects.create(name=name, owner=owner, project=project),
                base_url=url,
                model=model,
                sealed_key=_sealed(key),
                concurrency=_concurrency(concurrency),
                input_price=_price(input_price, "input_price"),
                output_price=_price(output_price, "output_price"),
                owner=owner,
            )
    except IntegrityError:
        raise name_taken(name) from None


def change(
    endpoint: Endpoint,
    *,
    key: str = "",
    remove_key: bool = False,
    concurrency: int,
    input_price: float | None = None,
    output_price: float | None = None,
) -> None:
    """Change what moves no score; a blank ``key`` leaves the one that is there. Raises UserError.

    Runs that are under way take a new key with their next process.
    """
    if key and remove_key:
        raise UserError("key: give a new one or remove the old one, not both.", "key")
    endpoint.concurrency = _concurrency(concurrency)
    endpoint.input_price = _price(input_price, "input_price")
    endpoint.output_price = _price(output_price, "output_price")
    if key or remove_key:
        endpoint.sealed_key = _sealed(key)
    endpoint.save()


def delete(endpoint: Endpoint, *, by: User) -> None:
    """Forget an endpoint; what was measured of it stays.

    Raises UserError while runs need it, with the names of those that ``by`` sees.
    """
    with transaction.atomic():
        Endpoint.objects.select_for_update().get(pk=endpoint.pk)
        using = Stage.objects.filter(config__endpoint=endpoint.pk)
        unfinished = using.exclude(run__state__in=FINAL_STATES)
        if told := told_runs(by, Run.objects.filter(stages__in=unfinished)):
            raise UserError(
                f"endpoint: {endpoint} is in use by {told}; wait for the end or cancel."
            )
        checkpoint = endpoint.checkpoint
        endpoint.delete()
        if not using.exists() and not checkpoint.evaluations.exists():
            checkpoint.delete()


def lock(endpoint: Endpoint, field: str) -> None:
    """Keep it from being deleted until the transaction ends. Raises UserError where it is gone."""
    if not Endpoint.objects.select_for_update(no_key=True).filter(pk=endpoint.pk).exists():
        raise UserError("endpoint: it has been deleted meanwhile; choose another.", field)


def ask(endpoint: Endpoint) -> Probe:
    """Ask the endpoint for its models: a few seconds at most. Raises UserError."""
    try:
        return probe(
            endpoint.base_url,
            model=endpoint.model,
            key=key_of(endpoint) or None,
            public_only=not settings.RETORT_ALLOW_PRIVATE_ENDPOINTS,
        )
    except InputError as error:
        raise UserError(str(error)) from None


def key_of(endpoint: Endpoint) -> str:
    """The key, to be handed to a child's environment and nowhere else; empty where there is none.

    Raises UserError where this installation's secret is not the one that sealed it.
    """
    if not endpoint.sealed_key:
        return ""
    try:
        return sealing.unseal(endpoint.sealed_key)
    except sealing.UnreadableError:
        raise UserError(
            f"key: {endpoint}'s cannot be read with this installation's secret; enter it again.",
            "key",
        ) from None


def engine_of(pk: int) -> dict[str, Any]:
    """The engine of a stage's specification, without the key. Raises UserError where it is gone."""
    endpoint = _get(pk)
    engine = {
        "name": "openai",
        "model": endpoint.model,
        "base_url": endpoint.base_url,
        "concurrency": endpoint.concurrency,
        "public_only": not settings.RETORT_ALLOW_PRIVATE_ENDPOINTS,
    }
    return engine | ({"key_variable": KEY_VARIABLE} if endpoint.sealed_key else {})


def secrets_of(pk: int) -> dict[str, str]:
    """What a child's environment gets for the endpoint. Raises UserError."""
    key = key_of(_get(pk))
    return {KEY_VARIABLE: key} if key else {}


def reseal_all() -> int:
    """Write every key anew under the newest secret; returns how many. Raises UserError."""
    with transaction.atomic():
        found = Endpoint.objects.select_for_update().exclude(sealed_key="").order_by("pk")
        for endpoint in found:
            Endpoint.objects.filter(pk=endpoint.pk).update(sealed_key=_sealed(key_of(endpoint)))
        return len(found)


def _get(pk: int) -> Endpoint:
    endpoint = Endpoint.objects.select_related("checkpoint").filter(pk=pk).first()
    if endpoint is None:
        raise UserError("endpoint: it has been deleted; register it again and launch anew.")
    return endpoint


def _checked_url(base_url: str) -> str:
    try:
        url = checked_url(base_url.strip())
    except InputError as error:
        raise UserError(str(error), "base_url") from None
    if len(url) > 500 or not url.isprintable() or " " in url:
        raise UserError("base_url: give an address of at most 500 characters.", "base_url")
    try:
        private = not is_public(urlsplit(url).hostname or "")
    except ValueError:  # a name: what it leads to is looked at whenever it is asked
        private = False
    if private and not settings.RETORT_ALLOW_PRIVATE_ENDPOINTS:
        raise UserError(
            "base_url: the address belongs to a private network; the setting "
            "RETORT_ALLOW_PRIVATE_ENDPOINTS allows such endpoints.",
            "base_url",
        )
    return url


def _sealed(key: str) -> str:
    key = key.strip()
    if len(key) > _LONGEST_KEY:
        raise UserError(f"key: longer than {_LONGEST_KEY} characters; copy it again.", "key")
    try:
        check_key(key, "key")
    except InputError as error:
        raise UserError(str(error), "key") from None
    return sealing.seal(key) if key else ""


def _concurrency(value: int) -> int:
    if not 1 <= value <= MOST_CONCURRENT:
        raise UserError(f"concurrency: give 1 to {MOST_CONCURRENT}.", "concurrency")
    return value


def _price(value: float | None, field: str) -> float | None:
    if value is not None and not 0 <= value <= 1e6:
        label = field.replace("_", " ")
        raise UserError(f"{label}: give 0 to 1,000,000 per million tokens.", field)
    return value
