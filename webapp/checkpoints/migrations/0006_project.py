"""Everything that was there goes to the first project."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("checkpoints", "0005_left_out_of_uploads"),
        ("projects", "0002_first_project"),
    ]

    operations = [
        migrations.AddField(
            model_name="checkpoint",
            name="project",
            # The first project's key, which projects.0002 has just given.
            field=models.ForeignKey(
                default=1, on_delete=models.PROTECT, to="projects.project"
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="upload",
            name="project",
            # The first project's key, which projects.0002 has just given.
            field=models.ForeignKey(
                default=1, on_delete=models.PROTECT, to="projects.project"
            ),
            preserve_default=False,
        ),
    ]
