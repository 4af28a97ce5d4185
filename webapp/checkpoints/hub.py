"""A model's files on the hub: which there are at a pinned commit, and their bytes.

Only the hub's two plain addresses are asked (its list of a commit's files, and one file), by our
own few lines rather than its client: every connection's address is checked where it is made, no
token goes along, nothing is cached and nothing of the repository is run.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urljoin, urlsplit

import aiohttp

from distiller import checkpoints
from distiller.errors import CheckpointError
from evaluator.engines.addresses import NotPublicError, public_socket
from webapp.checkpoints.services import safe_path
from webapp.core.errors import UserError

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,199}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LIST_BYTES = 10_000_000
_READ_BYTES = 1 << 20
_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=60)


class HubUnreachableError(Exception):
    """The hub did not answer, or not to the end: another try may help."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a commit; ``digest`` is ``sha256:hex``, or ``git:hex`` of a small one."""

    path: str
    size_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What a commit holds of a checkpoint."""

    commit: str
    files: tuple[HubFile, ...]
    left_out: tuple[str, ...]  # names of files and of folders that have no place in one


def checked_repository(repository: str) -> str:
    """``OWNER/NAME`` without surrounding space; raises UserError for anything else."""
    repository = repository.strip()
    if not _REPOSITORY.fullmatch(repository) or ".." in repository:
        raise UserError(
            f"repository: {repository[:60]!r} is no OWNER/NAME of the hub; copy it from the "
            "model's page.",
            "repository",
        )
    return repository


def checked_revision(revision: str) -> str:
    """A branch, tag or commit; ``main`` where none is given. Raises UserError."""
    revision = revision.strip() or "main"
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise UserError(
            f"revision: {revision[:60]!r} will not do; give a branch, a tag or a commit.",
            "revision",
        )
    return revision


class Hub:
    """The hub at ``endpoint``. With ``public_only`` no connection leaves for a private network,
    wherever a redirect points; the endpoint itself is the administrator's choice and exempt.
    """

    def __init__(self, endpoint: str, *, public_only: bool) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._public_only = public_only

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._own, self._others = self._loop.run_until_complete(self._sessions())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        async def close() -> None:
            await self._own.close()
            await self._others.close()

        self._loop.run_until_complete(close())
        self._loop.close()

    def list(self, repository: str, revision: str) -> Listing:
        """The files of the revision's commit that a checkpoint is made of, and their hashes.

        Raises UserError with one sentence where there is no such model, or nothing of it can be
        used; HubUnreachableError where another try may help.
        """
        address = (
            f"{self._endpoint}/api/models/{repository}/revision/{quote(revision, safe='')}"
            "?blobs=true"
        )
        with self._opened(address, {}, what=f"{repository} at {revision}") as response:
            raw = b""
            while block := self._read(response):
                raw += block
                if len(raw) > _LIST_BYTES:
                    raise UserError(f"repository: {repository} has too many files.", "repository")
        try:
            return _listing(json.loads(raw))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"repository: the hub's list of {repository}'s files cannot be read; upload the "
                "folder instead.",
                "repository",
            ) from error

    @contextmanager
    def opened(
        self, repository: str, commit: str, file: HubFile, offset: int
    ) -> Iterator[HubStream]:
        """One file's bytes from ``offset`` on. Raises as :meth:`list` does."""
        path = quote(file.path)
        address = f"{self._endpoint}/{repository}/resolve/{commit}/{path}"
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._opened(address, headers, what=f"{file.path} of {repository}") as response:
            if offset and response.status != 206:
                raise UserError(
                    f"repository: the hub does not send {file.path} from the middle; fetch it "
                    "again.",
                    "repository",
                )
            yield HubStream(self, response)

    def _read(self, response: aiohttp.ClientResponse, size: int = _READ_BYTES) -> bytes:
        try:
            return self._loop.run_until_complete(response.content.read(size))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise HubUnreachableError(f"the connection to the hub broke ({_line(error)})") from None

    async def _sessions(self) -> tuple[aiohttp.ClientSession, aiohttp.ClientSession]:
        """For the configured hub, and for where it redirects to."""
        checked: dict[str, Any] = {"socket_factory": public_socket} if self._public_only else {}
        return (
            aiohttp.ClientSession(timeout=_TIMEOUT, auto_decompress=False),
            aiohttp.ClientSession(
                timeout=_TIMEOUT, connector=aiohttp.TCPConnector(**checked), auto_decompress=False
            ),
        )

    @contextmanager
    def _opened(
        self, address: str, headers: dict[str, str], *, what: str
    ) -> Iterator[aiohttp.ClientResponse]:
        response = self._answer(address, headers, what)
        try:
            if response.status not in (200, 206):
                raise _refusal(response.status, what)
            yield response
        finally:
            response.close()

    def _answer(self, address: str, headers: dict[str, str], what: str) -> aiohttp.ClientResponse:
        """The answer behind at most a few redirects, each to an address that is looked at."""
        for _ in range(_MOST_REDIRECTS + 1):
            session = self._own if self._is_own(address) else self._others
            try:
                response = self._loop.run_until_complete(
                    session.get(address, headers=headers, allow_redirects=False)
                )
            except (aiohttp.ClientError, OSError, TimeoutError, ssl.SSLError) as error:
                if _is_ours(error):
                    raise UserError(
                        f"repository: the hub sends {what} from an address of a private network, "
                        "which is not asked.",
                        "repository",
                    ) from None
                raise HubUnreachableError(f"the hub cannot be reached ({_line(error)})") from None
            if response.status not in _REDIRECTS:
                return response
            address = urljoin(address, response.headers.get("Location", ""))
            response.close()
            if urlsplit(address).scheme != "https" and not self._is_own(address):
                break
        raise UserError(
            f"repository: the hub redirects {what} to where nothing is fetched from.", "repository"
        )

    def _is_own(self, address: str) -> bool:
        return urlsplit(address)[:2] == urlsplit(self._endpoint)[:2]


class HubStream:
    """A file that arrives; what uploads.append reads from."""

    def __init__(self, hub: Hub, response: aiohttp.ClientResponse) -> None:
        self._hub = hub
        self._response = response

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, none at the end; raises HubUnreachableError."""
        return self._hub._read(self._response, size)


def _listing(told: dict[str, Any]) -> Listing:
    commit = str(told["sha"])
    if not _COMMIT.fullmatch(commit):
        raise ValueError("no commit")
    names = [str(each["rfilename"]) for each in told["siblings"]]
    if adapter := [name for name in names if checkpoints.is_adapter(name) and "/" not in name]:
        raise UserError(
            f"repository: it brings an adapter ({adapter[0][:80]!r}); fetch the merged model.",
            "repository",
        )
    files = [found for each in told["siblings"] if (found := _file(each)) is not None]
    files = list(_wanted(files))
    if not any(file.path.endswith(".safetensors") for file in files):
        raise UserError(
            "repository: it holds no safetensors weights, and nothing else is taken; convert the "
            "model first.",
            "repository",
        )
    taken = {file.path for file in files}
    others = (name for name in names if name not in taken)
    tops = (name.partition("/") for name in others)  # of folders nothing is taken
    return Listing(commit, tuple(files), tuple(top + slash for top, slash, _ in tops))


def _file(told: dict[str, Any]) -> HubFile | None:
    """A file by the hub's word for it; None where it has no place in a checkpoint."""
    path = str(told["rfilename"])
    if PurePosixPath(path).name != path:
        return None  # other formats lie in folders beside the model
    try:
        checkpoints.refuse_name(str(safe_path(path)))
    except (CheckpointError, UserError):
        return None
    lfs = told.get("lfs")
    digest = f"sha256:{lfs['sha256']}" if lfs else f"git:{told['blobId']}"
    kind, _, value = digest.partition(":")
    if not (_SHA256 if kind == "sha256" else _COMMIT).fullmatch(value):
        raise ValueError("no hash")
    size = lfs["size"] if lfs else told["size"]
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError("no size")
    return HubFile(path, size, digest)


def _wanted(files: list[HubFile]) -> Iterator[HubFile]:
    """Without weights that transformers would not load beside its own, as consolidated ones."""
    weights = {file.path for file in files if file.path.endswith(".safetensors")}
    usual = {path for path in weights if path.startswith("model")}
    for file in files:
        if file.path not in weights or not usual or file.path in usual:
            yield file


def _refusal(status: int, what: str) -> Exception:
    if status in (401, 403):
        return UserError(
            f"repository: the hub does not give {what} to everybody; download it with your own "
            "account and upload the folder.",
            "repository",
        )
    if status == 404:
        return UserError(f"repository: the hub has no {what}; look at the name.", "repository")
    return HubUnreachableError(f"the hub answered {status} for {what}")


def _is_ours(error: BaseException | None) -> bool:
    """Whether our own check refused the connection."""
    while error is not None:
        if isinstance(error, NotPublicError) or isinstance(
            getattr(error, "os_error", None), NotPublicError
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
