"""What was there before projects goes to the first one, and so do the people who made it."""

from __future__ import annotations

from typing import Any

from django.db import migrations


def fill(apps: Any, _schema: Any) -> None:
    """Make the first project; who was here keeps what they could do."""
    project = apps.get_model("projects", "Project").objects.create(name="Main")
    membership = apps.get_model("projects", "Membership")
    membership.objects.bulk_create(
        membership(project=project, user=user, role="admin" if user.is_staff else "operator")
        for user in apps.get_model("core", "User").objects.all()
    )


class Migration(migrations.Migration):
    dependencies = [("projects", "0001_initial")]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
