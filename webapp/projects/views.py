"""Projects: which there are, who is in one, and in which role."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count
from django.db.models.functions import Lower
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from webapp.core.errors import UserError
from webapp.core.forms import speak
from webapp.core.models import User
from webapp.core.users import signed_in
from webapp.projects import invitations, services
from webapp.projects.access import has_role, projects_of, role_in
from webapp.projects.models import Membership, Project, Role


class SpeakingForm(forms.Form):
    """A form whose sentences name field and remedy."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        speak(self.fields)


class ProjectForm(SpeakingForm):
    """What a project is called, and whether everybody sees it."""

    name = forms.CharField(max_length=services.LONGEST_NAME)
    open = forms.BooleanField(
        required=False, label="Everybody who signs in may look",
        help_text="They may also launch runs of their own projects with its models.",
    )  # fmt: skip


class RoleForm(SpeakingForm):
    """What a member may do."""

    role = forms.ChoiceField(
        choices=[
            (Role.VIEWER.value, "viewer: look, download"),
            (Role.OPERATOR.value, "operator: also launch, upload"),
            (Role.ADMIN.value, "admin: also decide about everything in it"),
        ],
        initial=Role.OPERATOR.value,
    )


class InvitationForm(RoleForm):
    """Who is invited, as what."""

    email = forms.EmailField(max_length=254, label="Mail address")
    field_order = ("email", "role")

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.fields["email"].error_messages["invalid"] = "Mail address: give one as name@host."


class MemberForm(RoleForm):
    """Which account joins, as what."""

    username = forms.CharField(max_length=150, label="Account")
    field_order = ("username", "role")


@require_http_methods(["GET", "HEAD", "POST"])
def index(request: HttpRequest) -> HttpResponse:
    """The projects that one sees; administrators make another here."""
    user = signed_in(request)
    form = ProjectForm(request.POST if request.method == "POST" else None)
    if form.is_bound and form.is_valid():
        try:
            project = services.make(
                user, form.cleaned_data["name"], is_open=form.cleaned_data["open"]
            )
        except UserError as error:
            form.add_error(error.field, error.sentence)
        else:
            return redirect("projects:detail", project.pk)
    if form.is_bound and not user.is_staff:
        raise PermissionDenied
    held = dict(Membership.objects.filter(user=user).values_list("project", "role"))
    found = projects_of(user).annotate(member_count=Count("memberships")).order_by(Lower("name"))
    context = {
        "rows": [(project, held.get(project.pk, "")) for project in found],
        "form": form if user.is_staff else None,
    }
    return render(request, "projects/index.html", context, status=400 if form.is_bound else 200)


def _seen(request: HttpRequest, pk: int) -> Project:
    return get_object_or_404(projects_of(signed_in(request)), pk=pk)


def _managed(request: HttpRequest, pk: int) -> Project:
    project = _seen(request, pk)
    if not has_role(signed_in(request), pk, Role.ADMIN):
        raise PermissionDenied
    return project


@require_safe
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    """Who is in it."""
    return _page(request, _seen(request, pk))


def _page(request: HttpRequest, project: Project, link: str = "", **bound: Any) -> HttpResponse:
    user = signed_in(request)
    own = Membership.objects.filter(project=project, user=user).first()
    manages = has_role(user, project.pk, Role.ADMIN)
    context = {
        "project": project,
        "own": own,
        "role": role_in(user, project.pk),
        "manages": manages,
        # To those who are in it: an open project's page is everybody's.
        "members": services.members(project) if own or manages else None,
        "roles": Role.values,
        "invitations": invitations.open_ones(project) if manages else (),
        "invitation_form": InvitationForm(),
        "member_form": MemberForm(),
        "project_form": ProjectForm(initial={"name": project.name, "open": project.open}),
        "link": link,
        "days": invitations.DAYS,
    } | bound
    wrong = any(getattr(form, "errors", None) for form in bound.values())
    answer = render(request, "projects/detail.html", context, status=400 if wrong else 200)
    answer["Cache-Control"] = "no-store"
    return answer


@require_POST
def change(request: HttpRequest, pk: int) -> HttpResponse:
    """Rename, open or close it."""
    project, form = _managed(request, pk), ProjectForm(request.POST)
    if form.is_valid():
        try:
            services.change(
                signed_in(request), project, form.cleaned_data["name"],
                is_open=form.cleaned_data["open"],
            )  # fmt: skip
        except UserError as error:
            form.add_error(error.field, error.sentence)
            project.refresh_from_db()
        else:
            messages.success(request, "Saved.")
            return redirect("projects:detail", pk)
    return _page(request, project, project_form=form)


@require_POST
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Take an empty project away."""
    project = _managed(request, pk)
    try:
        services.delete(signed_in(request), project)
    except UserError as error:
        messages.error(request, error.sentence)
        return redirect("projects:detail", pk)
    messages.success(request, f"The project {project.name} is gone.")
    return redirect("projects:index")


@require_POST
def invite(request: HttpRequest, pk: int) -> HttpResponse:
    """Send an invitation, or show its link this once."""
    project, form = _managed(request, pk), InvitationForm(request.POST)
    if form.is_valid():
        try:
            invitation, link = invitations.invite(
                signed_in(request), project, form.cleaned_data["email"],
                Role(form.cleaned_data["role"]),
            )  # fmt: skip
        except UserError as error:
            form.add_error(error.field, error.sentence)
        else:
            if link:
                return _page(request, project, link)
            messages.success(request, f"An invitation is on its way to {invitation.email}.")
            return redirect("projects:detail", pk)
    return _page(request, project, invitation_form=form)


@require_POST
def revoke_invitation(request: HttpRequest, pk: int, invitation: int) -> HttpResponse:
    """Have an invitation's link open nothing any more."""
    found = get_object_or_404(_managed(request, pk).invitations, pk=invitation)
    invitations.revoke(signed_in(request), found)
    messages.success(request, "The invitation is revoked.")
    return redirect("projects:detail", pk)


@require_POST
def add_member(request: HttpRequest, pk: int) -> HttpResponse:
    """Have an account join, as administrators may."""
    project, form = _managed(request, pk), MemberForm(request.POST)
    if not signed_in(request).is_staff:
        raise PermissionDenied
    if form.is_valid():
        try:
            services.add(
                signed_in(request), project, form.cleaned_data["username"],
                Role(form.cleaned_data["role"]),
            )  # fmt: skip
        except UserError as error:
            form.add_error(error.field, error.sentence)
        else:
            return redirect("projects:detail", pk)
    return _page(request, project, member_form=form)


def _membership(project: Project, user: int) -> Membership:
    return get_object_or_404(Membership.objects.select_related("project", "user"),
                             project=project, user=user)  # fmt: skip


@require_POST
def set_role(request: HttpRequest, pk: int, user: int) -> HttpResponse:
    """Give a member another role."""
    membership, form = _membership(_managed(request, pk), user), RoleForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Role: choose one.")
        return redirect("projects:detail", pk)
    try:
        services.set_role(signed_in(request), membership, Role(form.cleaned_data["role"]))
    except UserError as error:
        messages.error(request, error.sentence)
    return redirect("projects:detail", pk)


@require_POST
def remove_member(request: HttpRequest, pk: int, user: int) -> HttpResponse:
    """Take somebody out of it, or leave it."""
    actor: User = signed_in(request)
    project = _seen(request, pk)
    if user != actor.pk and not has_role(actor, pk, Role.ADMIN):
        raise PermissionDenied
    try:
        services.remove(actor, _membership(project, user))
    except UserError as error:
        messages.error(request, error.sentence)
        return redirect("projects:detail", pk)
    is_seen = projects_of(actor).filter(pk=pk).exists()
    return redirect("projects:detail", pk) if is_seen else redirect("projects:index")
