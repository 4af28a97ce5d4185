from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import ProgrammingError, connection, transaction
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

FUNCTIONS = Path(__file__).resolve().parents[2] / "judge.sql"
JUDGE_ROLE = "retort_judge"
# What no judge may: column of pg_roles → the attribute.
ATTRIBUTES = {
    "rolsuper": "SUPERUSER", "rolcreatedb": "CREATEDB", "rolcreaterole": "CREATEROLE",
    "rolreplication": "REPLICATION", "rolbypassrls": "BYPASSRLS",
}  # fmt: skip
PASSWORD = "JUDGE_PASSWORD"  # noqa: S105 - the variable's name


class Command(BaseCommand):
    help = (
        "Make the database role of workers of the judge queue, who run untrusted programs. It can "
        "read no table; it can claim, renew and finish shards of the judge queue, nothing else. "
        f"Its password is read from the environment variable {PASSWORD}. Run it again after an "
        "upgrade; then start workers with RETORT_QUEUES=judge and a DATABASE_URL of that role."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--name", default=JUDGE_ROLE, help="of the role")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            make_role(options["name"], os.environ.get(PASSWORD))
        except ProgrammingError as error:
            if not isinstance(error.__cause__, InsufficientPrivilege):
                raise
            user = connection.settings_dict["USER"]
            raise CommandError(
                f"The database's user {user} may not make or change the role: {error}".strip()
                + f"\nHave a superuser run: ALTER ROLE {user} CREATEROLE; or drop a role of this "
                "name that somebody else has made."
            ) from error
        self.stdout.write(f"{options['name']} may work in {connection.settings_dict['NAME']}.")


def make_role(name: str, password: str | None) -> None:
    """Make the role, or set it right; without a password it can only enter where it is trusted."""
    role, database = sql.Identifier(name), sql.Identifier(str(connection.settings_dict["NAME"]))
    with transaction.atomic(), connection.cursor() as cursor:

        def run(query: str, **values: Any) -> None:
            cursor.execute(sql.SQL(query).format(role=role, database=database, **values))

        # Roles are the cluster's: two databases of it may do this at the same moment.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('judge_role'))")
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name])
        if cursor.fetchone() is None:
            run("CREATE ROLE {role}")
        run("ALTER ROLE {role} LOGIN PASSWORD {password}", password=sql.Literal(password))
        # A new role has none of these. Who may only create roles may not even name them.
        cursor.execute(
            f"SELECT {', '.join(ATTRIBUTES)} FROM pg_roles WHERE rolname = %s",  # noqa: S608 - ours
            [name],
        )
        held = cursor.fetchone()
        for attribute, has in zip(ATTRIBUTES.values(), held, strict=True):
            if has:
                run(f"ALTER ROLE {{role}} NO{attribute}")
        run("GRANT CONNECT ON DATABASE {database} TO {role}")
        run("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}")
        run("GRANT USAGE ON SCHEMA public TO {role}")
        cursor.execute(FUNCTIONS.read_text())
        cursor.execute(
            "SELECT oid::regprocedure::text FROM pg_proc "
            "WHERE pronamespace = 'public'::regnamespace AND proname LIKE 'judge\\_%%'"
        )
        for (signature,) in cursor.fetchall():
            function = sql.SQL(signature)
            run("REVOKE ALL ON FUNCTION {function} FROM PUBLIC", function=function)
            run("GRANT EXECUTE ON FUNCTION {function} TO {role}", function=function)
