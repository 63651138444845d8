"""The Docker SDK, which blocks, behind threads of its own and with an end to every call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, NotFound

Result = TypeVar("Result")

ENGINE_ERRORS = (DockerException, requests.RequestException, OSError)
"""What the SDK raises when the engine is away or refuses; ``NotFound`` and ``APIError`` are among them."""

CALL_SECONDS = 60
"""Most of one call; a start under load takes seconds, never a minute."""


class Engine:
    """One Docker engine."""

    def __init__(self, docker_host: str, threads: int) -> None:
        self._client: Any = docker.DockerClient(
            base_url=docker_host, version="1.41", timeout=CALL_SECONDS, max_pool_size=threads
        )
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="docker")

    async def call(self, work: Callable[[Any], Result], seconds: float = CALL_SECONDS + 5) -> Result:
        """Runs ``work(client)`` in a thread; raises ``TimeoutError`` when it does not come back."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(seconds):
            return await loop.run_in_executor(self._threads, work, self._client)

    async def wait(self, container_id: str, seconds: float) -> bool:
        """Waits at most ``seconds`` for a container's end; True when it has ended or is gone."""

        def work(client: Any) -> bool:
            try:
                client.api.wait(container_id, timeout=seconds, condition="not-running")
            except requests.RequestException:
                return False
            return True

        try:
            return await self.call(work, seconds + 15)
        except NotFound:
            return True
        except (*ENGINE_ERRORS, TimeoutError):
            # The engine is away or starting: ask again, a little later.
            await asyncio.sleep(0.5)
            return False

    def close(self) -> None:
        """Closes the connections; running calls end by their own timeouts."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()


def explain(error: BaseException) -> str:
    """Returns the engine's own words, cut to a sentence."""
    text = str(error.explanation) if isinstance(error, APIError) and error.explanation else str(error)
    return text[:500]
