"""Projects, their members, and invitations into them."""

from __future__ import annotations

from django.urls import path

from webapp.projects import invitation_views, views

app_name = "projects"

urlpatterns = [
    path("", views.index, name="index"),
    path("<int:pk>/", views.detail, name="detail"),
    path("<int:pk>/change/", views.change, name="change"),
    path("<int:pk>/delete/", views.delete, name="delete"),
    path("<int:pk>/invite/", views.invite, name="invite"),
    path(
        "<int:pk>/invitations/<int:invitation>/revoke/",
        views.revoke_invitation,
        name="revoke-invitation",
    ),
    path("<int:pk>/add/", views.add_member, name="add-member"),
    path("<int:pk>/members/<int:user>/role/", views.set_role, name="role"),
    path("<int:pk>/members/<int:user>/remove/", views.remove_member, name="remove-member"),
    path("invitation/", invitation_views.invitation, name="invitation"),
    path("invitation/<str:token>/", invitation_views.link, name="invitation-link"),
]
