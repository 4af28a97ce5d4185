from pathlib import Path

from django.db import migrations

CLAIM = (Path(__file__).resolve().parent.parent / "claim.sql").read_text()
DROP = "DROP FUNCTION runs_claim(text[], text, float8, bigint, bigint, int, int)"


class Migration(migrations.Migration):
    """The claim function with another column, which can only be made anew."""

    dependencies = [("runs", "0007_attempts")]

    operations = [migrations.RunSQL([DROP, CLAIM], migrations.RunSQL.noop)]
