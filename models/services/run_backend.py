"""The control plane behind the runtimes' endpoint: `sandbox.link.backend.RuntimeBackend` over PostgreSQL and blobs."""

from __future__ import annotations

from models.storage.blobs import BlobStore
from models.storage.cache import Cache
from models.storage.db import Database


class RunBackend:
    """Writes what runtimes report; every write is fenced by (run, attempt, runtime)."""

    def __init__(
        self, db: Database, blobs: BlobStore, cache: Cache | None, *, allow_null_runner: bool = False
    ) -> None:
        self._db = db
        self._blobs = blobs
        self._cache = cache
        self._allow_null_runner = allow_null_runner
