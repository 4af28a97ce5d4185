"""Uploaded chats that are mixed into a corpus: checked, and kept once under their content's hash.

A recipe names them by their path in the store; another file of this host is never read for it, nor
chats of others that its owner could not have seen. A form that comes back keeps its chats, so that
they need not be sent again; where no run names them in the end, they are garbage.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import uuid
import zlib
from pathlib import Path
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.db import transaction
from django.utils import timezone

from distiller.errors import DistillerError
from distiller.mixing import read_chats
from distiller.recipe import Recipe
from evaluator.errors import StoreError
from webapp.checkpoints.uploads import require_quota
from webapp.core import store
from webapp.core.errors import UserError
from webapp.core.locks import lock_store
from webapp.core.models import User
from webapp.projects.access import seen_by
from webapp.runs.models import KeptChats, Run

MOST_BYTES = 512 << 20  # of text, unpacked
MOST_LINE_BYTES = 16 << 20
SPARED_BYTES = 2 << 30  # of the disk: forms that come back keep their chats until they are swept
_KEPT = re.compile(r"chats/[0-9a-f]{64}\.jsonl")
_CHUNK = 1 << 20


def keep(uploaded: UploadedFile[Any], owner: User) -> str:
    """Check an upload of chats (JSONL, also .gz) and return its path in the store.

    It counts in the owner's quota as long as it is there. Raises UserError naming the line, or the
    quota, with nothing left behind, or that the store is away.
    """
    name = Path(uploaded.name or "chats.jsonl").name
    folder = store.path_of("chats")
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < MOST_BYTES + SPARED_BYTES:
        raise UserError(
            "general chats: the server's disk is nearly full; ask the administrator for room.",
            _FIELD,
        )
    part = folder / f".{uuid.uuid4().hex}.jsonl"
    try:
        digest = _unpack(uploaded, part, packed=name.endswith(".gz"))
        count = sum(1 for _ in read_chats(part, "general"))
        if not count:
            raise UserError("general chats: the file holds none; give at least one.", _FIELD)
        relative = f"chats/{digest}.jsonl"
        with transaction.atomic():
            lock_store()  # no sweep between the row and the file
            _count(owner, relative, part.stat().st_size)
            part.replace(store.path_of(relative))
            store.publish(relative)  # other hosts' children read them
    except StoreError as error:
        raise UserError(f"general chats: {error} Upload them again.", _FIELD) from error
    except DistillerError as error:
        said = str(error).replace(str(part), name).replace(part.name, name)
        raise UserError(f"general chats: {said}", _FIELD) from None
    finally:
        part.unlink(missing_ok=True)
    return relative


def _count(owner: User, path: str, size_bytes: int) -> None:
    """Have them count in the owner's quota, where they do not yet. Raises UserError."""
    # One at a time for each person: the quota is looked at and used in one go.
    User.objects.select_for_update().get(pk=owner.pk)
    # Whoever uploads them again means to use them: their time begins anew.
    if not KeptChats.objects.filter(owner=owner, path=path).update(kept_at=timezone.now()):
        require_quota(owner, size_bytes, "general chats", _FIELD)
        KeptChats.objects.create(owner=owner, path=path, size_bytes=size_bytes)


def may_use(user: User, path: str) -> bool:
    """Whether a path names chats here that the person uploaded, or that a run they see names."""
    if not is_kept(path):
        return False
    if KeptChats.objects.filter(owner=user, path=path).exists():
        return True
    naming = Run.objects.filter(config__corpus__general__contains=[{"file": path}])
    return seen_by(user, naming).exists()


def is_kept(path: str) -> bool:
    """Whether a path names chats that were uploaded here."""
    return bool(_KEPT.fullmatch(path)) and store.holds(path)


def located(recipe: Recipe) -> Recipe:
    """The recipe with its chats' paths as a child reads them: absolute."""
    plan = recipe.corpus
    if not plan.general:
        return recipe
    general = tuple(
        source.model_copy(update={"file": str(store.path_of(source.file))})
        for source in plan.general
    )
    return recipe.model_copy(update={"corpus": plan.model_copy(update={"general": general})})


_FIELD = "general_file"


def _unpack(uploaded: UploadedFile[Any], target: Path, *, packed: bool) -> str:
    """Write the text and return its SHA-256; a packed bomb ends at the limit."""
    digest, size, line = hashlib.sha256(), 0, 0
    uploaded.seek(0)
    source: Any = gzip.GzipFile(fileobj=uploaded) if packed else uploaded
    try:
        with target.open("wb") as file:
            while chunk := source.read(_CHUNK):
                size += len(chunk)
                line = line + len(chunk) if b"\n" not in chunk else len(chunk) - chunk.rfind(b"\n")
                if size > MOST_BYTES or line > MOST_LINE_BYTES:
                    raise UserError(
                        f"general chats: more than {MOST_BYTES >> 20} MiB of text, or a line of "
                        f"more than {MOST_LINE_BYTES >> 20} MiB; give fewer or shorter chats.",
                        _FIELD,
                    )
                digest.update(chunk)
                file.write(chunk)
    except (OSError, EOFError, zlib.error) as error:
        if not packed:
            raise
        raise UserError(
            f"general chats: cannot be unpacked ({error}); give JSON lines, also .gz.", _FIELD
        ) from None
    return digest.hexdigest()
