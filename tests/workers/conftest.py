from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from models.storage.blobs import BlobStore
from models.storage.cache import Cache
from models.storage.db import Database
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.valkey import ValkeyServer
from tests.workers.plant import Plant
from workflows.names import SEARCH_ATTRIBUTES

TEMPORAL = Path(sys.executable).parent / "temporal"


@pytest.fixture
async def plant(
    tmp_path: Path, database: TestDatabase, db: Database, system_db: Database, valkey: ValkeyServer
) -> AsyncIterator[Plant]:
    async with planted(tmp_path, database, db, system_db, valkey) as made:
        await made.start()
        yield made


@pytest.fixture
async def relay_only(
    tmp_path: Path, database: TestDatabase, db: Database, system_db: Database, valkey: ValkeyServer
) -> AsyncIterator[Plant]:
    """The test starts, and kills, control workers of its own."""
    async with planted(tmp_path, database, db, system_db, valkey) as made:
        await made.start(control=False)
        yield made


@asynccontextmanager
async def planted(
    tmp_path: Path, database: TestDatabase, db: Database, system_db: Database, valkey: ValkeyServer
) -> AsyncGenerator[Plant]:
    extra = [word for key in SEARCH_ATTRIBUTES for word in ("--search-attribute", f"{key.name}=Keyword")]
    env = await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(TEMPORAL),
        namespace="awgp",
        ip="127.0.0.1",
        ui=False,
        data_converter=pydantic_data_converter,
        dev_server_extra_args=extra,
    )
    cache = Cache(valkey.url, "tenant-key")
    async with env:
        made = Plant(
            tmp_path, env.client, database, valkey, db, system_db, BlobStore(f"file://{tmp_path}/blobs"), cache
        )
        try:
            yield made
        finally:
            await made.close()
    await cache.close()
