"""Accounts: signing in and out, one's own, everybody's; and the audit log."""

from __future__ import annotations

from django.urls import path

from webapp.core import account_views, audit_views, people_views, views

app_name = "core"

urlpatterns = [
    path("login/", views.SignIn.as_view(), name="login"),
    path("logout/", views.sign_out, name="logout"),
    path("reset/", views.reset, name="reset"),
    path("reset/<str:uidb64>/<str:token>/", views.ResetConfirm.as_view(), name="reset-confirm"),
    path("", account_views.profile, name="profile"),
    path("password/", account_views.password, name="password"),
    path("sessions/end-others/", account_views.end_other_sessions, name="end-other-sessions"),
    path("sessions/<slug:name>/end/", account_views.end_session, name="end-session"),
    path("people/", people_views.index, name="people"),
    path("people/<int:pk>/deactivate/", people_views.deactivate, name="deactivate"),
    path("people/<int:pk>/activate/", people_views.activate, name="activate"),
    path("people/<int:pk>/reset-link/", people_views.make_reset_link, name="make-reset-link"),
    path("audit/", audit_views.index, name="audit"),
    path("audit/csv/", audit_views.as_csv, name="audit-csv"),
]
