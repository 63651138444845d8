"""The floor's workers, in processes of their own as the product's are: ``python -m bench.lifecycle.bare_worker``."""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager

from temporalio.client import Client
from temporalio.worker import Worker

from bench.lifecycle import bare
from workers.broker import MOST_FOLLOWED
from workers.control import AT_ONCE, CACHED_WORKFLOWS
from workers.process import stop_event
from workers.stack.paths import CHECKOUT
from workflows.client import connect

ROLES = ("control", "broker")
READY = "ready"
NAMESPACE = "awgp"


def workers(client: Client, role: str) -> list[Worker]:
    """A role's workers, with the options that the product's have."""
    if role == "control":
        control = Worker(
            client,
            task_queue=bare.CONTROL_QUEUE,
            workflows=[bare.BareWorkflow],
            activities=[bare.bare_local],
            max_cached_workflows=CACHED_WORKFLOWS,
            max_concurrent_workflow_tasks=AT_ONCE,
            max_concurrent_activities=AT_ONCE,
            max_concurrent_local_activities=AT_ONCE,
        )
        return [control]
    place = Worker(
        client,
        task_queue=bare.RUN_QUEUE,
        activities=[bare.bare_place],
        max_concurrent_activities=AT_ONCE,
        max_concurrent_activity_task_polls=2,
    )
    follow = Worker(
        client, task_queue=bare.BROKER_QUEUE, activities=[bare.bare_follow], max_concurrent_activities=MOST_FOLLOWED
    )
    return [place, follow]


@contextmanager
def processes(address: str) -> Generator[dict[str, int]]:
    """Start both processes and end them; their pids by role."""
    running: dict[str, subprocess.Popen[str]] = {}
    try:
        for role in ROLES:
            command = [sys.executable, "-m", "bench.lifecycle.bare_worker", role, address]
            running[role] = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
        for role, process in running.items():
            assert process.stdout is not None
            if process.stdout.readline().strip() != READY:
                raise SystemExit(f"the bare {role} worker did not start")
        yield {role: process.pid for role, process in running.items()}
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


async def main() -> None:
    """Run one role's workers until told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("address")
    options = parser.parse_args()
    stop = stop_event()
    client = await connect(options.address, NAMESPACE)
    async with AsyncExitStack() as running:
        for worker in workers(client, options.role):
            await running.enter_async_context(worker)
        print(READY, flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
    # Temporal's own threads may still hand something to Python, which a finalising interpreter takes for a crash.
    os._exit(0)
