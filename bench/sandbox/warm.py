"""A claim of a prepared sandbox → its agent's first instruction."""

from __future__ import annotations

import asyncio
import statistics
import time
from uuid import uuid4

from bench.sandbox.cold import verdict
from bench.sandbox.contest import Contest, Ran
from sandbox.warm_pool import Warm, WarmPool

PROMISED_MS = 10.0
_AGENTS = {"busybox echo": ("echo", "x"), "python -c print": ("python3", "-c", "print('x')")}


async def warm(contest: Contest, claims: int) -> None:
    """Prints the table."""
    (contest.base / "mounts").mkdir(exist_ok=True, mode=0o700)
    pool = WarmPool(contest.runner, contest.base / "mounts", uuid4(), (Warm(image=contest.image, count=2),))
    filling = asyncio.create_task(pool.keep())
    taken: dict[str, list[tuple[float, Ran]]] = {name: [] for name in _AGENTS}
    try:
        for number in range(claims + 1):
            for name, command in _AGENTS.items():
                await _full(pool)
                ran = await _claim(contest, pool, command)
                if number:  # The first warms caches.
                    taken[name].append(ran)
    finally:
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)
        await pool.close()
    _print(taken, claims)


async def _full(pool: WarmPool) -> None:
    """Waits until all is prepared, so that nothing is while it is measured."""
    async with asyncio.timeout(60):
        while pool.ready < 2:  # noqa: ASYNC110 (the pool tells nobody)
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)


async def _claim(contest: Contest, pool: WarmPool, command: tuple[str, ...]) -> tuple[float, Ran]:
    job = contest.job(*command)
    began = time.perf_counter()
    member = await pool.claim(job.spec)
    if member is None:
        raise SystemExit("nothing was prepared")
    claimed = (time.perf_counter() - began) * 1000
    return claimed, await contest.execute(job, member)


def _print(taken: dict[str, list[tuple[float, Ran]]], claims: int) -> None:
    print(f"\nwarm: claim → the agent's first byte, ms; {claims} claims each")
    print(f"{'':20} {'inside p50':>11} {'at the host p50':>16} {'p90':>6} {'least':>6} {'most':>6}")
    for name, runs in taken.items():
        inside = statistics.median(claimed + ran.inside for claimed, ran in runs)
        outside = sorted(claimed + ran.first_byte for claimed, ran in runs)
        p90 = outside[int(len(outside) * 0.9)]
        middle = statistics.median(outside)
        print(f"{name:20} {inside:>11.1f} {middle:>16.1f} {p90:>6.1f} {outside[0]:>6.1f} {outside[-1]:>6.1f}")
    first = statistics.median(claimed + ran.inside for claimed, ran in taken["busybox echo"])
    print(f"promise: under {PROMISED_MS:.0f} ms p50 to the first instruction: {verdict(first < PROMISED_MS)}")
