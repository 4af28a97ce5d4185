"""The commands of ``python -m distiller``, a file each; :mod:`distiller.cli` lists them."""
