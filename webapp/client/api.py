"""The server's operations as typed methods. Whatever it refuses is a ClientError."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from webapp.client import models
from webapp.client.errors import ClientError
from webapp.client.settings import checked_server

Answer = TypeVar("Answer", bound=BaseModel)

_PAGE = 200
_TIMEOUT_SECONDS = 60.0
_FILE_SECONDS = 900.0  # of a form with a file, which the server reads before it answers
_BLOCK = 1 << 16


class Retort:
    """A server, spoken to with one token. Use it as a context manager, or close it."""

    def __init__(
        self, server: str, token: str, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.server = checked_server(server)
        self._http = httpx.Client(
            base_url=self.server,
            headers={"Authorization": f"Bearer {token}", "User-Agent": "retort-client"},
            timeout=_TIMEOUT_SECONDS,
            transport=transport,  # redirects are not followed: the token goes to this server only
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    # --- asking

    def request(self, method: str, path: str, **named: Any) -> httpx.Response:
        """The answer of ``path`` (below the server's address). Raises ClientError."""
        try:
            answer = self._http.request(method, path, **named)
        except httpx.HTTPError as error:
            raise ClientError(f"{self.server}: does not answer ({error}).") from error
        if not answer.is_success:
            raise _refused(answer)
        return answer

    def _one(self, kind: type[Answer], method: str, path: str, **named: Any) -> Answer:
        return _read(kind, self.request(method, f"/api/v1{path}", **named))

    def _pages(
        self, kind: type[Answer], path: str, query: Mapping[str, Any], most: int | None
    ) -> Iterator[Answer]:
        """Rows of a list, page by page, at most ``most``."""
        given = {key: value for key, value in query.items() if value not in (None, "", False)}
        after, left = None, most
        while left is None or left > 0:
            page = given | {"limit": min(_PAGE, left or _PAGE)}
            if after is not None:
                page["after"] = after
            told = _json(self.request("GET", f"/api/v1{path}", params=page))
            for row in told["items"]:
                yield _validated(kind, row)
            left = None if left is None else left - len(told["items"])
            after = told["next"]
            if after is None:
                return

    # --- the operations

    def me(self) -> models.Me:
        """Who the token speaks for."""
        return self._one(models.Me, "GET", "/me")

    def runs(self, *, most: int | None = None, **query: Any) -> Iterator[models.Run]:
        """Runs, the newest first; ``query`` as in the schema (state, kind, owner, name)."""
        return self._pages(models.Run, "/runs", query, most)

    def run(self, key: int) -> models.RunDetail:
        """A run with its stages."""
        return self._one(models.RunDetail, "GET", f"/runs/{key}")

    def log(self, key: int) -> list[models.Log]:
        """The last lines of the run's stages."""
        told = _json(self.request("GET", f"/api/v1/runs/{key}/log"))
        return [_validated(models.Log, row) for row in told]

    def cancel(self, key: int) -> None:
        """Cancel a run."""
        self.request("POST", f"/api/v1/runs/{key}/cancel")

    def retry(self, key: int) -> None:
        """Go on with a run that ended."""
        self.request("POST", f"/api/v1/runs/{key}/retry")

    def distil(self, yaml: str, **more: Any) -> models.RunDetail:
        """Launch a distillation by a recipe's text; ``more``: priority, project, devices."""
        body = {"yaml": yaml, **_given(more)}
        return self._one(models.RunDetail, "POST", "/runs/distil", json=body)

    def check(self, yaml: str, **more: Any) -> models.RunDetail:
        """Have a recipe checked by a worker."""
        return self._one(
            models.RunDetail, "POST", "/runs/check", json={"yaml": yaml, **_given(more)}
        )

    def evaluate(
        self, checkpoints: Sequence[str], benchmarks: Sequence[str], **more: Any
    ) -> models.RunDetail:
        """Launch the measurement of each checkpoint on each benchmark, all by their names."""
        body = {"checkpoints": [*checkpoints], "benchmarks": [*benchmarks], **_given(more)}
        return self._one(models.RunDetail, "POST", "/runs/evaluate", json=body)

    def estimate_distil(self, yaml: str, **more: Any) -> list[models.Figure]:
        """What a distillation would take; arguments as of :meth:`distil`."""
        body = {"yaml": yaml, **_given(more)}
        told = _json(self.request("POST", "/api/v1/runs/distil/estimate", json=body))
        return [_validated(models.Figure, row) for row in told]

    def estimate_evaluate(
        self, checkpoints: Sequence[str], benchmarks: Sequence[str], **more: Any
    ) -> models.Plan:
        """What :meth:`evaluate` would ask for."""
        body = {"checkpoints": [*checkpoints], "benchmarks": [*benchmarks], **_given(more)}
        return self._one(models.Plan, "POST", "/runs/evaluate/estimate", json=body)

    def written_recipe(self, yaml: str) -> models.Written:
        """A recipe with every default."""
        return self._one(models.Written, "POST", "/runs/distil/recipe", json={"yaml": yaml})

    def run_graph(self, key: int) -> models.Graph:
        """What a run used, and what it made."""
        return self._one(models.Graph, "GET", f"/runs/{key}/graph")

    # --- checkpoints

    def checkpoints(self, *, most: int | None = None, **query: Any) -> Iterator[models.Checkpoint]:
        """Checkpoints, the newest first; ``query``: name, exact, tag, archived."""
        return self._pages(models.Checkpoint, "/checkpoints", query, most)

    def checkpoint(self, name: str) -> models.Checkpoint:
        """The checkpoint of this name, archived ones too. Raises ClientError."""
        for archived in (False, True):
            for found in self.checkpoints(most=1, exact=name, archived=archived):
                return found
        raise ClientError(f"checkpoint: none that you see is called {name!r}.", status=404)

    def edit_checkpoint(self, key: int, **words: Any) -> models.Checkpoint:
        """Change notes, tags, licence, prompts_licence or project; what is left out stays."""
        return self._one(models.Checkpoint, "PATCH", f"/checkpoints/{key}", json=_given(words))

    def checkpoint_graph(self, key: int) -> models.Graph:
        """A checkpoint's ancestors, its scores and its students."""
        return self._one(models.Graph, "GET", f"/checkpoints/{key}/graph")

    # --- what administrators add

    def benchmarks(self, *, most: int | None = None) -> Iterator[models.Benchmark]:
        """Every version of every benchmark, the newest first."""
        return self._pages(models.Benchmark, "/benchmarks", {}, most)

    def add_benchmark(self, name: str, file: Path) -> models.Benchmark:
        """Install a version of a benchmark."""
        return _read(models.Benchmark, self._send("/benchmarks", file, name=name))

    def prompt_sets(self, *, most: int | None = None) -> Iterator[models.PromptSet]:
        """Every version of every prompt set, the newest first."""
        return self._pages(models.PromptSet, "/prompt-sets", {}, most)

    def add_prompt_set(self, name: str, file: Path, like: str = "math_500") -> models.PromptSet:
        """Install a version of a prompt set, whose file has the columns of benchmark ``like``."""
        return _read(models.PromptSet, self._send("/prompt-sets", file, name=name, like=like))

    def contests(self, *, most: int | None = None) -> Iterator[models.Contest]:
        """The contests that programs are rated by."""
        return self._pages(models.Contest, "/benchmarks/contests", {}, most)

    def add_contest(self, file: Path, *, population: bool = False) -> models.Added:
        """Install a contest bundle, or the ratings that percentiles refer to."""
        kind = "population" if population else "contest"
        return _read(models.Added, self._send("/benchmarks/contests", file, kind=kind))

    def keep_chats(self, file: Path) -> str:
        """Bring general chats in; what a recipe names them by."""
        told = _json(self._send("/chats", file))
        return _validated(models.Kept, told).file

    def _send(self, path: str, file: Path, **fields: str) -> httpx.Response:
        """A form with a file. Raises ClientError."""
        try:
            with file.open("rb") as body:
                return self.request(
                    "POST", f"/api/v1{path}", data=fields, files={"file": (file.name, body)},
                    timeout=_FILE_SECONDS,
                )  # fmt: skip
        except OSError as error:
            raise ClientError(f"file: {file} cannot be read ({error.strerror}).") from error

    # --- figures

    def evaluations(self, *, most: int | None = None, **query: Any) -> Iterator[models.Evaluation]:
        """Evaluations, the newest first; ``query``: checkpoint, benchmark, run, scored."""
        return self._pages(models.Evaluation, "/evaluations", query, most)

    def compare(self, evaluations: Sequence[int], base: int | None = None) -> models.Comparison:
        """Evaluations side by side on the problems that they share."""
        query = {"e": [*evaluations]} | ({} if base is None else {"base": base})
        return self._one(models.Comparison, "GET", "/comparison", params=query)

    def import_completions(
        self, file: Path, checkpoint: str, benchmark: str, project: int | None = None
    ) -> models.RunDetail:
        """Have completions made elsewhere graded; ``checkpoint`` is whose they are."""
        fields = {"checkpoint": checkpoint, "benchmark": benchmark}
        fields |= {} if project is None else {"project": str(project)}
        return _read(models.RunDetail, self._send("/runs/import", file, **fields))

    # --- uploads (webapp/client/sending.py sends the files)

    def begin_upload(
        self, name: str, files: Mapping[str, int], project: int | None = None
    ) -> models.UploadDetail:
        """Begin an upload of ``files`` (path → bytes)."""
        listed = [{"path": path, "length_bytes": length} for path, length in files.items()]
        body = {"name": name, "files": listed, **_given({"project": project})}
        return self._one(models.UploadDetail, "POST", "/uploads", json=body)

    def fetch_from_hub(self, repository: str, **more: Any) -> models.UploadDetail:
        """Have a worker fetch a model; ``more``: revision, name, project."""
        body = {"repository": repository, **_given(more)}
        return self._one(models.UploadDetail, "POST", "/uploads/hub", json=body)

    def uploads(self) -> list[models.Upload]:
        """Uploads that are not through."""
        told = _json(self.request("GET", "/api/v1/uploads"))
        return [_validated(models.Upload, row) for row in told]

    def upload(self, key: str) -> models.UploadDetail:
        """How an upload stands."""
        return self._one(models.UploadDetail, "GET", f"/uploads/{key}")

    def finish_upload(self, key: str) -> models.Upload:
        """All files are there: have the upload verified."""
        return self._one(models.Upload, "POST", f"/uploads/{key}/finish")

    def discard_upload(self, key: str) -> None:
        """Forget an upload."""
        self.request("DELETE", f"/api/v1/uploads/{key}")

    # --- reports

    def reports(self, evaluation: int) -> list[models.Report]:
        """Reports that workers make or made."""
        told = _json(self.request("GET", f"/api/v1/evaluations/{evaluation}/reports"))
        return [_validated(models.Report, row) for row in told]

    def ask_report(self, evaluation: int, form: str) -> models.Report:
        """Have a worker make a pdf or a zip."""
        path = f"/evaluations/{evaluation}/reports"
        return self._one(models.Report, "POST", path, json={"form": form})

    def download(self, path: str, target: Path) -> int:
        """Write an answer's body to a file, whole or not at all; returns its bytes."""
        part = target.with_name(f".{target.name}.part")
        size = 0
        try:
            with self._http.stream("GET", f"/api/v1{path}") as answer:
                if not answer.is_success:
                    answer.read()
                    raise _refused(answer)
                with part.open("wb") as file:
                    for block in answer.iter_bytes(_BLOCK):
                        size += file.write(block)
            part.replace(target)
        except httpx.HTTPError as error:
            raise ClientError(f"{self.server}: broke off ({error}); try again.") from error
        except OSError as error:
            raise ClientError(f"out: {target} cannot be written ({error.strerror}).") from error
        finally:
            part.unlink(missing_ok=True)
        return size


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        raise ClientError(f"{answer.url.host}: answers as no Retort server does.") from None


def _read(kind: type[Answer], answer: httpx.Response) -> Answer:
    return _validated(kind, _json(answer))


def _validated(kind: type[Answer], told: Any) -> Answer:
    try:
        return kind.model_validate(told)
    except ValidationError:
        raise ClientError(
            "The server answers otherwise than this client reads; update the older of the two."
        ) from None


def _refused(answer: httpx.Response) -> ClientError:
    """The server's own sentence, or what its status says."""
    try:
        told = answer.json()
        sentence, field = str(told["sentence"]), told.get("field")
    except (ValueError, KeyError, TypeError, AttributeError):
        plain = (
            answer.text if answer.headers.get("content-type", "").startswith("text/plain") else ""
        )
        sentence, field = plain[:300] or f"The server answered {answer.status_code}.", None
    return ClientError(sentence, status=answer.status_code, field=field)
