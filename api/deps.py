"""What the routes stand on, composed once by `workers/api.py` (or a test) and handed in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Protocol, cast
from uuid import UUID

import structlog
from fastapi import Depends, Request

from api.tokens import TokenVerifier
from models.domain.errors import DependencyAway
from models.services.run_credentials import LiveRuns, RunWarrants
from models.settings import Settings
from models.storage.blobs import BlobStore
from models.storage.cache import Cache
from models.storage.db import Database
from models.storage.vault import Vault

log = structlog.get_logger(__name__)

FAST_PATH_SECONDS = 3.0


class FastPath(Protocol):
    """Tells Temporal at once what the outbox would tell it a moment later (`workflows.client.WorkflowGateway`)."""

    async def start_work_item(self, tenant_id: UUID, work_item_id: UUID) -> object:
        """Start the work item's workflow; already started is success."""
        ...

    async def signal_work_item(self, tenant_id: UUID, work_item_id: UUID) -> object:
        """Tell it to look again."""
        ...

    async def signal_approval(self, approval_id: UUID) -> object:
        """Tell the approval's workflow to look again."""
        ...


@dataclass(frozen=True)
class Probe:
    """One thing that readiness asks after.

    Attributes:
        hard: Without it no request can be served.
        check: Returns a word about it, or raises.
    """

    name: str
    hard: bool
    check: Callable[[], Awaitable[str]]


@dataclass(frozen=True)
class Deps:
    """The API's dependencies.

    Attributes:
        live_runs: Whether the run behind a warrant lives, by copies at most 5 s old.
        warrants: Verifies warrants shown by agents; None: only assistants' keys are known here.
        vault: Seals what a company entrusts to its connectors; None where this process holds no key.
        close: Ends what this process opened, in order.
    """

    settings: Settings
    db: Database
    cache: Cache
    blobs: BlobStore
    tokens: TokenVerifier
    fast_path: FastPath
    live_runs: LiveRuns
    warrants: RunWarrants | None = None
    probes: tuple[Probe, ...] = ()
    vault: Vault | None = None
    close: tuple[Callable[[], Awaitable[object]], ...] = field(default=())

    def sealing(self) -> Vault:
        """What seals secrets.

        Raises:
            DependencyAway: The setting `secret_store_key` is missing here.
        """
        if self.vault is None:
            raise DependencyAway("this installation has no key for its secret store (setting AWGP_SECRET_STORE_KEY)")
        return self.vault


def _deps(request: Request) -> Deps:
    return cast("Deps", request.app.state.deps)


Given = Annotated[Deps, Depends(_deps)]


async def hurry(tell: Callable[..., Awaitable[object]], *named: UUID) -> None:
    """Take the fast path after a commit. It may fail: the relay sends the same from the outbox."""
    try:
        await asyncio.wait_for(tell(*named), FAST_PATH_SECONDS)
    except Exception as error:  # whatever Temporal's client says, the row is committed
        log.info("fast_path_missed", error=str(error)[:200])
