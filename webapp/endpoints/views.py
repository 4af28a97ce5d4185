"""Endpoints: list, register, change, test, delete."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from webapp.core.errors import UserError
from webapp.core.users import signed_in
from webapp.endpoints import queries, services
from webapp.endpoints.forms import ChangeForm, RegisterForm
from webapp.endpoints.models import Endpoint

PAGE = 50


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """All endpoints."""
    page = Paginator(queries.endpoints(), PAGE).get_page(request.GET.get("page"))
    return render(request, "endpoints/index.html", {"page": page})


@sensitive_post_parameters("key")
@require_http_methods(["GET", "HEAD", "POST"])
def register(request: HttpRequest) -> HttpResponse:
    """Register an endpoint."""
    form = RegisterForm(request.POST if request.method == "POST" else None)
    if form.is_bound and form.is_valid():
        try:
            endpoint = services.register(owner=signed_in(request), **form.cleaned_data)
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
    endpoint = get_object_or_404(queries.endpoints(), pk=pk)
    if request.method != "POST":
        names = ("concurrency", "input_price", "output_price")
        form = ChangeForm(initial={name: getattr(endpoint, name) for name in names})
        return _detail_page(request, endpoint, form)
    _check_owner(request, endpoint)
    form = ChangeForm(request.POST)
    if form.is_valid():
        try:
            services.change(endpoint, **form.cleaned_data)
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
    context = {"endpoint": endpoint, "form": form, "is_owner": _is_owner(request, endpoint)}
    status = 400 if form.is_bound else 200
    return render(request, "endpoints/detail.html", context, status=status)


@require_POST
def test(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask the endpoint for its models, within seconds, and say what came of it."""
    endpoint = get_object_or_404(queries.endpoints(), pk=pk)
    _check_owner(request, endpoint)
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
    endpoint = get_object_or_404(queries.endpoints(), pk=pk)
    _check_owner(request, endpoint)
    name = str(endpoint)
    try:
        services.delete(endpoint)
    except UserError as error:
        messages.error(request, error.sentence)
        return redirect("endpoints:detail", pk)
    messages.success(request, f"{name} is deleted; what was measured of it stays.")
    return redirect("endpoints:index")


def _is_owner(request: HttpRequest, endpoint: Endpoint) -> bool:
    user = signed_in(request)
    return user.is_superuser or endpoint.owner_id == user.pk


def _check_owner(request: HttpRequest, endpoint: Endpoint) -> None:
    """Whoever else may launch runs with it, the key and its use are the owner's to change."""
    if not _is_owner(request, endpoint):
        raise PermissionDenied


def _known(form: Any, field: str | None) -> str | None:
    return field if field in form.fields else None
