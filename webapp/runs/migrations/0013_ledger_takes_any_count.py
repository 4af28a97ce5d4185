from pathlib import Path

from django.db import migrations

LEDGER = (Path(__file__).resolve().parent.parent / "ledger.sql").read_text()


class Migration(migrations.Migration):
    """The trigger that ends a lease, whatever an endpoint says that it counted.

    The one before differs in failing only, so that going back leaves this one.
    """

    dependencies = [("runs", "0012_kept_chats")]

    operations = [migrations.RunSQL(LEDGER, migrations.RunSQL.noop)]
