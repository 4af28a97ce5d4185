#!/usr/bin/env python
"""Django's entry. `manage.py up` runs web, worker and embedded servers in one terminal."""

import os
import sys

# Commands that touch neither the database nor the broker.
WITHOUT_SERVERS = {"help", "version", "check", "diffsettings", "findstatic", "collectstatic"}


def main() -> int:
    """Run a management command, starting the embedded servers first where none is configured."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.config.settings")
    from django.core.management import execute_from_command_line

    from webapp.config.embedded import EmbeddedServerError, ensure_running

    command = sys.argv[1] if len(sys.argv) > 1 else "help"
    asks_for_help = bool({"--help", "-h", "--version"} & set(sys.argv))
    if command not in WITHOUT_SERVERS and not asks_for_help:
        try:
            ensure_running()
        except EmbeddedServerError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    execute_from_command_line(sys.argv)
    return 0


if __name__ == "__main__":
    sys.exit(main())
