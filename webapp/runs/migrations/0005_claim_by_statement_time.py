from pathlib import Path

from django.db import migrations

CLAIM = (Path(__file__).resolve().parent.parent / "claim.sql").read_text()


class Migration(migrations.Migration):
    """The claim function once more, for databases that have an earlier one."""

    dependencies = [("runs", "0004_completion_judged")]

    operations = [migrations.RunSQL(CLAIM, migrations.RunSQL.noop)]
