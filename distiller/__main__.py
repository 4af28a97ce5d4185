"""``python -m distiller``: see :mod:`distiller.cli`."""

import sys

from distiller.cli import main

if __name__ == "__main__":
    sys.exit(main())
