"""`python -m workers`."""

from workers.app import main

main()
