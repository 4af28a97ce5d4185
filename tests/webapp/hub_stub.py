"""The hub's two addresses that a fetch asks, on this machine; it can be told to misbehave."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "c0ffee" + "0" * 34


class HubStub:
    """Serves ``files`` as models/OWNER/NAME at one commit; every request is written down."""

    def __init__(self, files: dict[str, bytes], lfs: tuple[str, ...] = (".safetensors",)) -> None:
        self.files = dict(files)
        self.lfs = lfs
        self.asked: list[tuple[str, str | None]] = []
        self.headers: list[dict[str, str]] = []
        self.status: dict[str, int] = {}  # path ending → status
        self.redirects: dict[str, str] = {}  # path ending → Location
        self.breaks_after: dict[str, int] = {}  # file → bytes of the first answer
        self.lies: dict[str, bytes] = {}  # file → what is sent instead
        self.url = ""

    def listing(self) -> dict[str, Any]:
        """What /api/models/…/revision/… says."""
        siblings = []
        for name, data in self.files.items():
            entry: dict[str, Any] = {"rfilename": name, "size": len(data)}
            entry["blobId"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            if name.endswith(self.lfs):
                entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            siblings.append(entry)
        return {"sha": COMMIT, "siblings": siblings}


@contextmanager
def serving(stub: HubStub) -> Iterator[HubStub]:
    """The stub on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            stub.asked.append((path, self.headers.get("Range")))
            stub.headers.append(dict(self.headers))
            for ending, location in stub.redirects.items():
                if path.endswith(ending):
                    self._answer(302, b"", Location=location)
                    return
            for ending, status in stub.status.items():
                if path.endswith(ending):
                    self._answer(status, b"no")
                    return
            if path.startswith("/api/models/"):
                self._answer(200, json.dumps(stub.listing()).encode())
                return
            name = path.rpartition("/")[2]
            data = stub.lies.get(name, stub.files.get(name))
            if data is None:
                self._answer(404, b"")
                return
            begin = self.headers.get("Range")
            start = int(begin.removeprefix("bytes=").rstrip("-")) if begin else 0
            self._answer(206 if begin else 200, data[start:], stub.breaks_after.pop(name, None))

        def _answer(self, status: int, body: bytes, cut: int | None = None, **headers: str) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if cut is None else body[:cut])
            if cut is not None:
                self.close_connection = True
                self.connection.close()

        def log_message(self, *_: Any) -> None:
            """Quiet."""

        def finish(self) -> None:
            with suppress(OSError, ValueError):  # the connection was closed on purpose
                super().finish()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
