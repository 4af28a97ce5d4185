"""Everything that was there goes to the first project."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("runs", "0008_claim_tells_of_earlier_leases"),
        ("projects", "0002_first_project"),
    ]

    operations = [
        migrations.AddField(
            model_name="run",
            name="project",
            # The first project's key, which projects.0002 has just given.
            field=models.ForeignKey(
                default=1, on_delete=models.PROTECT, to="projects.project"
            ),
            preserve_default=False,
        ),
    ]
