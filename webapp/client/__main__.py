"""``python -m webapp.client``: the ``retort`` command."""

from __future__ import annotations

import sys

from webapp.client.cli import main

if __name__ == "__main__":
    sys.exit(main())
