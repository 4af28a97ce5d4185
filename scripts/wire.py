"""What a page's requests weigh, by the browser's own count."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page


class Wire:
    """Bytes as they came over the wire, headers included, with an empty cache at every request."""

    def __init__(self, page: Page) -> None:
        self.sent: dict[str, float] = {}  # address → bytes
        self._addresses: dict[str, str] = {}
        session = page.context.new_cdp_session(page)
        session.on("Network.requestWillBeSent", self._begin)
        session.on("Network.loadingFinished", self._end)
        session.send("Network.enable")
        session.send("Network.setCacheDisabled", {"cacheDisabled": True})

    def _begin(self, event: dict[str, Any]) -> None:
        self._addresses[event["requestId"]] = event["request"]["url"]

    def _end(self, event: dict[str, Any]) -> None:
        address = self._addresses.get(event["requestId"], "")
        self.sent[address] = self.sent.get(address, 0.0) + event["encodedDataLength"]

    def forget(self) -> None:
        """Begin to count anew."""
        self.sent = {}
