"""The host runtime: runs sandboxes of one tenant on this machine. ``python -m workers.runtime``.

Holds no credential of database, Redis or Temporal, and imports none of their libraries: a machine that
runs untrusted code must not have them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import resource
import signal
import sys
from uuid import UUID

import structlog

from sandbox.agent_upstreams import Upstreams, connections_a_run
from sandbox.container_arguments import Host
from sandbox.docker_runner import DockerRunner
from sandbox.engine import Engine
from sandbox.failed_start import FailedStarts
from sandbox.keeper import RunKeeper
from sandbox.link.blob_client import BlobClient
from sandbox.link.client import RuntimeLink, parse_jwks
from sandbox.link.enrolment import EnrolmentRefusedError, identity_of
from sandbox.link.lease import Leases
from sandbox.null_runner import NullRunner
from sandbox.placement_store import PlacementStore
from sandbox.probe import Probe, ProbeSettings, wait_for_engine
from sandbox.runner import ProbeFailedError, Runner
from sandbox.runtime_settings import RuntimeSettings
from sandbox.status_file import RuntimeState, StatusFile
from sandbox.warm_pool import WarmPool, read_warm

log = structlog.get_logger(__name__)

EXIT_NOT_ENROLLED = 77
EXIT_NOT_FENCED = 78
"""Of sysexits.h: EX_NOPERM, EX_CONFIG. A supervisor may try again; only a person mends it."""


async def main() -> int:
    """Runs until told to stop; sandboxes live on and are taken up by the next process."""
    settings = RuntimeSettings()
    _set_up_logging(settings.log_level)
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = StatusFile(settings.state_dir.resolve())
    status.say(RuntimeState.STARTING)
    engine, runner = await _runner(settings)
    work = asyncio.create_task(_work(settings, runner, status))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        log.info("runtime_stopped", sandboxes="live on")
    except ProbeFailedError as error:
        status.say(RuntimeState.NOT_FENCED, str(error))
        for name, why in error.failed.items():
            log.error("not_fenced", check=name, why=why)
        print(f"this host does not fence what it runs, so nothing runs here: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_NOT_FENCED
    except EnrolmentRefusedError as error:
        status.say(RuntimeState.NOT_ENROLLED, str(error))
        print(str(error), file=sys.stderr)  # noqa: T201
        return EXIT_NOT_ENROLLED
    finally:
        if engine is not None:
            engine.close()
    return 0


async def _runner(settings: RuntimeSettings) -> tuple[Engine | None, Runner]:
    if settings.null_runner:
        log.warning("NULL RUNNER: nothing is executed, every run succeeds. For development only.")
        return None, NullRunner()
    engine = Engine(settings.docker_host, threads=settings.capacity * 3 + 4)
    probe = ProbeSettings(
        settings.probe_image, settings.docker_runtime, settings.state_dir.resolve(), settings.mounts_dir
    )
    state = str(settings.state_dir.resolve()).encode()
    host = Host(
        owner=hashlib.sha256(state).hexdigest()[:16],
        docker_runtime=settings.docker_runtime,
        guest=settings.guest_path.resolve(),
    )
    failed = FailedStarts(engine, settings.containerd_socket)
    return engine, DockerRunner(engine, host, failed, Probe(engine, probe))


async def _work(settings: RuntimeSettings, runner: Runner, status: StatusFile) -> None:
    if isinstance(runner, DockerRunner):
        await wait_for_engine(runner.engine, log.warning)
    facts = await runner.facts()
    if not facts.null_runner:
        log.info("fence_proved", gvisor=facts.gvisor_version, platform=facts.platform, checks=len(facts.checks))
    state_dir = settings.state_dir.resolve()
    identity = await identity_of(state_dir, settings.base_url, settings.runtime_name, settings.enrolment_token)
    blobs = BlobClient(settings.base_url)
    each = connections_a_run(_raise_file_limit(), settings.capacity)
    upstreams = Upstreams(settings.gateway_url, settings.api_url, settings.capacity * each, each)
    pool = _pool(settings, runner, identity.names.tenant_id)
    keeper = RunKeeper(
        runner,
        PlacementStore(state_dir, settings.mounts_dir),
        blobs,
        Leases(),
        tenant_id=identity.names.tenant_id,
        capacity=settings.capacity,
        upstreams=upstreams,
        pool=pool,
    )
    await keeper.resume()
    filling = None if pool is None else asyncio.create_task(pool.keep())
    jwks = parse_jwks(settings.warrant_jwks) if settings.warrant_jwks else None
    try:
        await RuntimeLink(settings.base_url, identity, keeper, blobs, facts, jwks, status).run()
    finally:
        if pool is not None and filling is not None:
            filling.cancel()
            await pool.close()
        await keeper.detach()
        await upstreams.close()


def _pool(settings: RuntimeSettings, runner: Runner, tenant_id: UUID) -> WarmPool | None:
    kinds = read_warm(settings.warm)
    if not kinds or not isinstance(runner, DockerRunner):
        return None
    return WarmPool(runner, settings.mounts_dir, tenant_id, kinds)


def _raise_file_limit() -> int:
    """Agents' connections are descriptors of this process; the soft limit is often a thousand."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def _set_up_logging(level: str) -> None:
    numbers = logging.getLevelNamesMapping()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(numbers.get(level.upper(), logging.INFO)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
    )


def run() -> None:
    """Ends the process without waiting for threads that wait for containers: they would take half a minute."""
    code = asyncio.run(main())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        run()
