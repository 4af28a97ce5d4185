#!/usr/bin/env python
"""Django's entry. `manage.py up` runs web, worker and embedded servers in one terminal."""

import os
import sys


def main() -> None:
    """Run a management command, starting the embedded servers first where none is configured."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.config.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
