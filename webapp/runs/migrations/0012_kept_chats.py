"""Chats belong to who uploaded them. Of those from before nobody knows who: they count for none."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("runs", "0011_summaries_of_metrics"),
    ]

    operations = [
        migrations.CreateModel(
            name="KeptChats",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "path",
                    models.CharField(db_index=True, help_text="in the store", max_length=100),
                ),
                ("size_bytes", models.BigIntegerField()),
                ("kept_at", models.DateTimeField(auto_now_add=True)),
                (
                    "owner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={"ordering": ["-kept_at"]},
        ),
        migrations.AddConstraint(
            model_name="keptchats",
            constraint=models.UniqueConstraint(fields=("owner", "path"), name="chats_of_owner"),
        ),
    ]
