"""`python -m workers.api`: the API's composition root."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit
from uuid import UUID

import structlog
import uvicorn

from api.app import create_app
from api.deps import Deps, Probe
from api.tokens import SigningKeys, TokenVerifier, fetch_keys_from
from models.services.run_credentials import LiveRuns, RunWarrants
from models.services.warrant_keys import JwksVerifier
from models.settings import Settings
from models.storage.blobs import BlobStore
from models.storage.cache import Cache
from models.storage.db import Database
from models.storage.vault import Vault
from workers.process import set_up_logging
from workflows.client import WorkflowGateway, connect

log = structlog.get_logger(__name__)


class TemporalAwayError(ConnectionError):
    """There is no connection to Temporal (yet)."""


class LazyFastPath:
    """Connects behind the scenes, so that the API starts and serves while Temporal is away."""

    def __init__(self, address: str, namespace: str) -> None:
        self._address = address
        self._namespace = namespace
        self._gateway: WorkflowGateway | None = None
        self._connecting: asyncio.Task[None] | None = None

    async def start_work_item(self, tenant_id: UUID, work_item_id: UUID) -> bool:
        """Start the work item's workflow."""
        return await self._connected().start_work_item(tenant_id, work_item_id)

    async def signal_work_item(self, tenant_id: UUID, work_item_id: UUID) -> bool:
        """Tell it to look again."""
        return await self._connected().signal_work_item(tenant_id, work_item_id)

    async def signal_approval(self, approval_id: UUID) -> bool:
        """Tell the approval's workflow to look again."""
        return await self._connected().signal_approval(approval_id)

    async def ping(self) -> None:
        """Raise when Temporal does not answer."""
        await self._connected().ping()

    async def close(self) -> None:
        """Stop trying."""
        if self._connecting is not None:
            self._connecting.cancel()

    def _connected(self) -> WorkflowGateway:
        if self._gateway is not None:
            return self._gateway
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
        raise TemporalAwayError("not connected yet")

    async def _connect(self) -> None:
        try:
            client = await connect(self._address, self._namespace, tries=1)
            self._gateway = WorkflowGateway(client)
        except ConnectionError as error:
            log.info("temporal_away", error=str(error)[:200])


def build(settings: Settings) -> Deps:
    """Open what the API stands on; nothing is asked yet, so the order of starting does not matter."""
    db = Database(settings.secret("database_app_url"), pool_size=settings.database_pool_size)
    cache = Cache(settings.secret("redis_url"), settings.secret("redis_tenant_key"))
    blobs = BlobStore(settings.blobs)
    fast_path = LazyFastPath(settings.temporal_address, settings.temporal_namespace)
    keys = SigningKeys(fetch_keys_from(settings.jwks_url))
    if not settings.oidc_issuer:
        raise SystemExit("setting AWGP_OIDC_ISSUER is missing: whose tokens are good here?")
    sealing = settings.secret_store_key
    return Deps(
        settings=settings,
        db=db,
        cache=cache,
        blobs=blobs,
        tokens=TokenVerifier(keys, issuer=settings.oidc_issuer, audience=settings.oidc_audience),
        fast_path=fast_path,
        live_runs=LiveRuns(db),
        warrants=RunWarrants(JwksVerifier(settings.warrant_public_jwks)) if settings.warrant_public_jwks else None,
        probes=probes(settings, db, cache, blobs, fast_path),
        vault=Vault(sealing.get_secret_value()) if sealing is not None else None,
        close=(fast_path.close, cache.close, db.close),
    )


def probes(
    settings: Settings, db: Database, cache: Cache, blobs: BlobStore, fast_path: LazyFastPath
) -> tuple[Probe, ...]:
    """What readiness asks after. Without Temporal or Redis work is still taken, and goes on later."""

    async def postgres() -> str:
        await db.ping()
        return ""

    async def temporal() -> str:
        await fast_path.ping()
        return ""

    async def redis() -> str:
        await cache.ping()
        return ""

    async def blob_store() -> str:
        await blobs.ping()
        return ""

    async def broker() -> str:
        _, writer = await asyncio.open_connection(settings.broker_host, settings.broker_port)
        writer.close()
        return ""

    async def gateway() -> str:
        address = urlsplit(settings.agent_gateway_url)
        port = address.port or (443 if address.scheme == "https" else 80)
        _, writer = await asyncio.open_connection(address.hostname, port)
        writer.close()
        return ""

    return (
        Probe("postgres", hard=True, check=postgres),
        Probe("blobs", hard=True, check=blob_store),
        Probe("temporal", hard=False, check=temporal),
        Probe("redis", hard=False, check=redis),
        Probe("broker", hard=False, check=broker),
        Probe("gateway", hard=False, check=gateway),
    )


def main() -> None:
    """Serve until told to stop."""
    settings = Settings()
    set_up_logging(settings.log_level)
    app = create_app(build(settings))
    uvicorn.run(
        app,
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=65,
        # Open log streams are cut after this long, and the clients come back with Last-Event-ID.
        timeout_graceful_shutdown=3,
    )


if __name__ == "__main__":
    main()
