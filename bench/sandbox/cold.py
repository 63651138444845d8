"""Nothing → a sandbox's first byte: ours beside ``docker run`` and bare ``runsc run``, in alternated rounds."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench.sandbox.bare_runsc import BareRunsc
from bench.sandbox.contest import Contest
from bench.sandbox.docker_run import first_byte, flags_of
from sandbox.container_arguments import container_arguments
from sandbox.image_command import ImageCommand

PROMISED_RATIO = 1.2
AT_ONCE = 8


@dataclass
class Way:
    """One of the rivals."""

    name: str
    run: Callable[[], Awaitable[float]]


def ways(contest: Contest, bare: BareRunsc) -> list[Way]:
    """All of them; ours is the last."""

    async def plain(runtime: str) -> float:
        return await first_byte(contest.docker_host, runtime, contest.image, [])

    async def same(runtime: str) -> float:
        job = contest.job()
        job.folder.make()
        arguments = container_arguments(job, ImageCommand(("echo", "x"), {}, "/", ()), contest.host)
        flags = flags_of(arguments, contest.base / "seccomp.json")
        taken = await first_byte(contest.docker_host, runtime, contest.image, flags)
        job.folder.remove()
        return taken

    async def ours() -> float:
        return (await contest.execute(contest.job())).first_byte

    runsc = contest.host.docker_runtime
    return [
        Way("runsc run, bare", bare.first_byte),
        Way("docker run, runc", lambda: plain("runc")),
        Way("docker run, runc, same arguments", lambda: same("runc")),
        Way("docker run, runsc", lambda: plain(runsc)),
        Way("docker run, runsc, same arguments", lambda: same(runsc)),
        Way("ours", ours),
    ]


async def cold(contest: Contest, bare: BareRunsc, rounds: int, each: int) -> None:
    """Prints the table."""
    rivals = ways(contest, bare)
    for way in rivals:
        await way.run()  # Warms caches; not counted.
    medians: dict[str, list[float]] = {way.name: [] for way in rivals}
    for number in range(rounds):
        taken: dict[str, list[float]] = {way.name: [] for way in rivals}
        for _ in range(each):
            for way in rivals if number % 2 else reversed(rivals):
                taken[way.name].append(await way.run())
        for name, times in taken.items():
            medians[name].append(statistics.median(times))
    print(f"\ncold: nothing → first byte, ms; {rounds} rounds of {each}, alternated")
    print(f"{'':36} {'median':>7} {'rounds':>15}   ours / it (rounds)")
    for name, times in medians.items():
        ratios = sorted(mine / other for mine, other in zip(medians["ours"], times, strict=True))
        print(
            f"{name:36} {statistics.median(times):>7.0f} {min(times):>7.0f}–{max(times):<7.0f}"
            f"   {statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"
        )
    held = [mine / other for mine, other in zip(medians["ours"], medians[rivals[-2].name], strict=True)]
    ratio = statistics.median(held)
    print(f"promise: at most {PROMISED_RATIO} × docker run, runsc, same arguments: {verdict(ratio <= PROMISED_RATIO)}")


async def together(contest: Contest) -> None:
    """Starts eight at once."""
    began = time.perf_counter()
    ran = await asyncio.gather(*(contest.execute(contest.job()) for _ in range(AT_ONCE)), return_exceptions=True)
    errors = [error for error in ran if isinstance(error, BaseException)]
    print(f"\n{AT_ONCE} at once: {time.perf_counter() - began:.1f} s to the last end, errors={len(errors)}", *errors)


def verdict(held: bool) -> str:
    """In words."""
    return "held" if held else "NOT HELD"
