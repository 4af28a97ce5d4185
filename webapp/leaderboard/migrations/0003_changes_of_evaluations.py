from pathlib import Path

from django.db import migrations, models

HERE = Path(__file__).resolve().parent
NOTE = (HERE.parent / "changes.sql").read_text()
BEFORE = (HERE / "0002_changes.sql").read_text()
DROP = "".join(
    f"DROP TRIGGER leaderboard_note_{what} ON runs_evaluation;"
    for what in ("insert", "delete", "update")
)


class Migration(migrations.Migration):

    dependencies = [("leaderboard", "0002_changes")]

    operations = [
        migrations.AddField("change", "evaluation", models.BigIntegerField(
            null=True, help_text="all that changed, graded before or after; null: anything",
        )),
        migrations.RunSQL(NOTE, DROP + BEFORE + "DROP FUNCTION leaderboard_note_evaluation();"),
    ]
