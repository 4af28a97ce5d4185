"""A check of a recipe is a kind of run of its own: it was listed among the distillations."""

from __future__ import annotations

from typing import Any

from django.db import migrations, models
from django.db.models import Exists, OuterRef


def tell_apart(apps: Any, _schema: Any) -> None:
    """Runs that have a preflight stage and no other are checks."""
    stages = apps.get_model("runs", "Stage").objects.filter(run=OuterRef("pk"))
    apps.get_model("runs", "Run").objects.filter(
        Exists(stages.filter(kind="preflight")),
        ~Exists(stages.exclude(kind="preflight")),
        kind="distillation",
    ).update(kind="check")


def put_together(apps: Any, _schema: Any) -> None:
    """As it was."""
    apps.get_model("runs", "Run").objects.filter(kind="check").update(kind="distillation")


class Migration(migrations.Migration):
    dependencies = [("runs", "0009_project")]

    operations = [
        migrations.AlterField(
            model_name="run",
            name="kind",
            field=models.CharField(
                choices=[
                    ("distillation", "distillation"),
                    ("evaluation", "evaluation"),
                    ("check", "check"),
                ],
                max_length=20,
            ),
        ),
        migrations.RunPython(tell_apart, put_together),
    ]
