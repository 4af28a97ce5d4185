"""Endpoints: list, register, change, test, delete."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from webapp.core import audit
from webapp.core.errors import UserError
from webapp.core.users import signed_in
from webapp.endpoints import queries, services
from webapp.endpoints.forms import ChangeForm, RegisterForm
from webapp.endpoints.models import Endpoint
from webapp.projects.access import may_manage, may_use, projects_of, require_place, works_somewhere

PAGE = 50


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """The endpoints that one sees."""
    viewer = signed_in(request)
    context = {
        "page": Paginator(queries.endpoints(viewer), PAGE).get_page(request.GET.get("page")),
        "several": projects_of(viewer).count() > 1,
        "may_add": works_somewhere(viewer),
    }
    return render(request, "endpoints/index.html", context)


@sensitive_post_parameters("key")
@require_http_methods(["GET", "HEAD", "POST"])
def register(request: HttpRequest) -> HttpResponse:
    """Register an endpoint."""
    owner = signed_in(request)
    require_place(owner)
    form = RegisterForm(owner, request.POST if request.method == "POST" else None)
    if form.is_bound and form.is_valid():
        try:
            with transaction.atomic():
                endpoint = services.register(owner=owner, **form.cleaned_data)
                audit.record(owner, "endpoint.register", endpoint, base_url=endpoint.base_url)
        except UserError as error:
            form.add_error(_known(form, error.field), error.sentence)
        else:
            return redirect(endpoint)
    context = {"form": form}
    return render(request, "endpoints/register.html", context, status=400 if form.is_bound else 200)


@sensitive_post_parameters("key")
@require_http_methods(["GET", "HEAD", "POST"])
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    """One endpoint: what it is, and what may change of it."""
    endpoint = get_object_or_404(queries.endpoints(signed_in(request)), pk=pk)
    if request.method != "POST":
        names = ("concurrency", "input_price", "output_price")
        form = ChangeForm(initial={name: getattr(endpoint, name) for name in names})
        return _detail_page(request, endpoint, form)
    _require_decider(request, endpoint)
    form = ChangeForm(request.POST)
    if form.is_valid():
        try:
            with transaction.atomic():
                services.change(endpoint, **form.cleaned_data)
                key = bool(form.cleaned_data["key"] or form.cleaned_data.get("remove_key"))
                audit.record(signed_in(request), "endpoint.change", endpoint, with_key=key)
        except UserError as error:
            form.add_error(_known(form, error.field), error.sentence)
        else:
            messages.success(request, "The endpoint is changed.")
            return redirect(endpoint)
    return _detail_page(request, endpoint, form)


def _detail_page(request: HttpRequest, endpoint: Endpoint, form: ChangeForm) -> HttpResponse:
    if not endpoint.sealed_key:
        del form.fields["remove_key"]
        form.fields["key"].help_text = "It has none. Stored encrypted and not shown again."
    user = signed_in(request)
    context = {
        "endpoint": endpoint,
        "form": form,
        "may_manage": may_manage(user, endpoint),
        "may_use": may_use(user, endpoint.checkpoint.project),
        "several": projects_of(user).count() > 1,
    }
    status = 400 if form.is_bound else 200
    return render(request, "endpoints/detail.html", context, status=status)


@require_POST
def test(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask the endpoint for its models, within seconds, and say what came of it."""
    endpoint = get_object_or_404(queries.endpoints(signed_in(request)), pk=pk)
    _require_decider(request, endpoint)
    try:
        found = services.ask(endpoint)
    except UserError as error:
        messages.error(request, error.sentence)
        return redirect(endpoint)
    if not found.models:
        messages.warning(
            request, "It answers, but lists no models: a run will tell whether it has this one."
        )
    elif endpoint.model in found.models:
        context = found.greeting.context_tokens
        more = "" if context is None else f", with a context of {context:,} tokens"
        messages.success(request, f"It answers and serves {endpoint.model}{more}.")
    else:
        listed = ", ".join(found.models[:5]) + (" …" if len(found.models) > 5 else "")
        messages.error(
            request,
            f"model: it answers, but does not list {endpoint.model}; it has {listed[:300]}. "
            "Register it under the right name.",
        )
    return redirect(endpoint)


@require_POST
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Forget the endpoint, unless runs still need it."""
    endpoint = get_object_or_404(queries.endpoints(signed_in(request)), pk=pk)
    _require_decider(request, endpoint)
    name = str(endpoint)
    try:
        with transaction.atomic():
            audit.record(signed_in(request), "endpoint.delete", endpoint)
            services.delete(endpoint, by=signed_in(request))
    except UserError as error:
        messages.error(request, error.sentence)
        return redirect("endpoints:detail", pk)
    messages.success(request, f"{name} is deleted; what was measured of it stays.")
    return redirect("endpoints:index")


def _require_decider(request: HttpRequest, endpoint: Endpoint) -> None:
    """Whoever else may launch runs with it: its owner and admins change the key and its use."""
    if not may_manage(signed_in(request), endpoint):
        raise PermissionDenied


def _known(form: Any, field: str | None) -> str | None:
    return field if field in form.fields else None
