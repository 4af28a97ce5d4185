"""A small typed client of a Retort server, and the ``retort`` command over it.

It imports neither Django nor the server's code: what it knows is the API's schema.
"""

from webapp.client.api import Retort
from webapp.client.errors import ClientError

__all__ = ["ClientError", "Retort"]
