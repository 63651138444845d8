"""What the gateway adds to a call, beside the upstream alone and a bare pass-through, in alternated rounds.

``python -m bench.gateway``: one gateway worker has a core of its own; the upstream, the callers, PostgreSQL and Valkey
share the others. `bench/README.md` says how to read it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.gateway import litellm
from bench.gateway.load import Result, Target, load, tool
from models.domain.scripted import SCRIPTED_MODEL
from tests.fixtures.postgres import cloned, free_port, running_postgres
from tests.fixtures.valkey import running_valkey
from tests.overspend.world import CHECKOUT, Grant, Process, World, world_of

MANY = 32
GRANT = 10**14
WARM_UPS = 10
"""A first answer may take long, on a busy machine most of all."""
WORDS = "Say something, please. " * 10
SIZES = {False: ("plain", "a second"), True: ("stream", "streams/s")}
UPSTREAM, BARE, OURS, LITELLM = "upstream alone", "FastAPI + aiohttp", "AWGP", "LiteLLM"


def body(*, stream: bool) -> bytes:
    """A request as an agent's client writes it."""
    asked: dict[str, object] = {
        "model": SCRIPTED_MODEL,
        "max_tokens": 200,
        "messages": [{"role": "system", "content": "You are brief."}, {"role": "user", "content": WORDS}],
    }
    if stream:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(asked).encode()


@dataclass
class Seen:
    """One target's results of one kind of call, by round."""

    alone: list[Result] = field(default_factory=list[Result])
    many: list[Result] = field(default_factory=list[Result])
    processor: list[float] = field(default_factory=list[float])
    """Milliseconds of its core's time a call, in the crowd: it hardly depends on who else is on the machine."""


Measured = dict[tuple[str, bool], Seen]


class Bench:
    """Everything that stands while the bench runs."""

    def __init__(self, world: World, grant: Grant, options: argparse.Namespace) -> None:
        self._world = world
        self._options = options
        self._token = grant.token
        self.targets: list[Target] = []
        self.ours: Process | None = None
        self._others: list[subprocess.Popen[bytes]] = []
        self._pids: dict[str, int] = {}
        self._log = (world.folder / "others.log").open("ab")

    async def start(self) -> None:
        """Upstream, pass-through, gateway, and LiteLLM where it is wanted."""
        upstream = await self._other([sys.executable, "-m", "bench.gateway.upstream"], pin=False)
        await self._target(UPSTREAM, self._others[-1].pid, f"{upstream}/v1/chat/completions")
        bare = await self._other([sys.executable, "-m", "bench.gateway.bare"], upstream, pin=True)
        await self._target(BARE, self._others[-1].pid, f"{bare}/llm/v1/chat/completions")
        self.ours = self._world.gateway(upstream, pinned=self._pin())
        self.ours.start()
        await self.ours.listening()
        assert self.ours.running is not None, "started"
        await self._target(OURS, self.ours.running.pid, f"{self.ours.url}/llm/v1/chat/completions", self._token)
        if self._options.litellm:
            await self._start_litellm(upstream)

    async def _start_litellm(self, upstream: str) -> None:
        cache = Path(os.environ.get("AWGP_CACHE") or CHECKOUT / ".awgp" / "cache")
        port = free_port()
        command, told = litellm.command(cache, self._world.folder, upstream, self._world.valkey.url, port)
        self._begin([*self._pin(), *command], self._world.folder, told)
        await self._listening(port, 180)
        await self._target(
            LITELLM, self._others[-1].pid, f"http://127.0.0.1:{port}/v1/chat/completions", litellm.KEY
        )

    async def _target(self, name: str, pid: int, url: str, token: str = "") -> None:
        target = Target(name, url, token)
        for stream in (False, True):
            warm = Result(0, 1, 0, 0, 0)
            for _ in range(WARM_UPS):
                warm = await load(target, body(stream=stream), 4, 3)
                if warm.requests or warm.failed:
                    break
            if warm.failed or not warm.requests:
                raise RuntimeError(f"{name} does not answer: {warm}; see {self.tail()}")
        self.targets.append(target)
        self._pids[name] = pid

    async def _other(self, command: Sequence[str], *more: str, pin: bool) -> str:
        port = free_port()
        started = [*(self._pin() if pin else ()), *command, str(port), *more]
        self._begin(started, CHECKOUT)
        await self._listening(port, 30)
        return f"http://127.0.0.1:{port}"

    def _begin(self, command: Sequence[str], folder: Path, told: dict[str, str] | None = None) -> None:
        self._others.append(subprocess.Popen(command, cwd=folder, env=told, stdout=self._log, stderr=self._log))

    def _pin(self) -> list[str]:
        return ["taskset", "-c", str(self._options.core)]

    async def _listening(self, port: int, seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    return

    def tail(self) -> str:
        logs = [self._world.folder / "others.log", *self._world.folder.glob("gateway*.log")]
        return "\n".join(path.read_text()[-1500:] for path in logs if path.exists())

    def end(self) -> None:
        for other in self._others:
            other.terminate()
            try:
                other.wait(10)
            except subprocess.TimeoutExpired:
                other.kill()
                other.wait()
        self._log.close()

    async def rounds(self) -> Measured:
        """Every target, plain and streamed, alone and in a crowd; the order turns with the round."""
        measured: Measured = {(target.name, stream): Seen() for target in self.targets for stream in (False, True)}
        for number in range(self._options.rounds):
            order = self.targets if number % 2 == 0 else self.targets[::-1]
            for stream in (False, True):
                for target in order:
                    seen = measured[target.name, stream]
                    seen.alone.append(await load(target, body(stream=stream), 1, self._options.seconds))
                    before = processor_ms(self._pids[target.name])
                    seen.many.append(await load(target, body(stream=stream), MANY, self._options.seconds))
                    used = processor_ms(self._pids[target.name]) - before
                    seen.processor.append(used / max(1, seen.many[-1].requests))
            print(f"  round {number + 1} of {self._options.rounds}", flush=True)
        return measured

    async def memory(self) -> list[tuple[int, int]]:
        """(requests so far, resident KiB) of the gateway while it serves so many requests."""
        assert self.ours is not None, "started"
        ours = next(target for target in self.targets if target.name == OURS)
        done, found = 0, [(0, self.ours.rss_kib())]
        while done < self._options.requests:
            for stream in (False, True):
                done += (await load(ours, body(stream=stream), MANY, 5)).requests
            found.append((done, self.ours.rss_kib()))
            print(f"  {done:,} requests: {found[-1][1] / 1024:.1f} MB", flush=True)
        return found


def processor_ms(pid: int) -> float:
    """Processor time that a process has used, its threads' too, in milliseconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def spread(values: Sequence[float]) -> str:
    """Median, and the lowest and highest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def table(measured: Measured, names: Sequence[str]) -> None:
    """Medians of the rounds, with their spread; what a target adds is taken round by round."""
    for stream, (kind, unit) in SIZES.items():
        floor = measured[UPSTREAM, stream]
        print(f"\n{kind}: ms, median (lowest–highest) of the rounds")
        print(f"{'':<20}{'1 caller p50':<22}{'p99':<22}{'adds p50':<22}{'adds p99':<22}"
              f"{f'{MANY} callers, {unit}':<28}core time a call")
        for name in names:
            seen = measured[name, stream]
            pairs = list(zip(seen.alone, floor.alone, strict=True))
            added = [(one.p50 - base.p50, one.p99 - base.p99) for one, base in pairs]
            cells = [spread([one.p50 for one in seen.alone]), spread([one.p99 for one in seen.alone])]
            cells += ["" if name == UPSTREAM else spread([pair[at] for pair in added]) for at in (0, 1)]
            rates, processor = spread([one.rate for one in seen.many]), spread(seen.processor)
            print(f"{name:<20}" + "".join(f"{cell:<22}" for cell in cells) + f"{rates:<28}{processor}")
    failed = {name: sum(one.failed for stream in SIZES for one in _all(measured[name, stream])) for name in names}
    print("\nanswers that were not whole or not 2xx:", ", ".join(f"{name} {many}" for name, many in failed.items()))


def _all(seen: Seen) -> list[Result]:
    return [*seen.alone, *seen.many]


async def run(options: argparse.Namespace) -> None:
    """All of it."""
    with running_postgres(durable=True) as server, running_valkey(durable=True) as valkey, cloned(server) as database:
        async with AsyncExitStack() as stack:
            world = await stack.enter_async_context(world_of(database, valkey))
            bench = Bench(world, await world.grant(GRANT), options)
            stack.callback(bench.end)
            await bench.start()
            measured = await bench.rounds()
            if options.rounds:
                table(measured, [target.name for target in bench.targets])
            if options.requests:
                (_, first), *_, (done, last) = await bench.memory()
                print(f"\nmemory of the gateway: {first / 1024:.1f} MB, after {done:,} requests {last / 1024:.1f} MB")
    if not options.litellm:
        print("LiteLLM was left out (WITH_LITELLM=1 builds its environment and puts it beside)")
    print(f"load by {tool()}; the gateway alone on core {options.core}; load of the machine {os.getloadavg()}")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="0: the memory alone")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--requests", type=int, default=100_000, help="for the memory; 0: not measured")
    parser.add_argument("--core", type=int, default=0, help="the gateway's")
    parser.add_argument("--litellm", action="store_true", default=bool(os.environ.get("WITH_LITELLM")))
    options = parser.parse_args()
    others = os.sched_getaffinity(0) - {options.core}
    if others:
        # What is started from here inherits it; the gateways are given their core by taskset.
        os.sched_setaffinity(0, others)
    else:
        print("there is one core alone: everything shares it, and the figures say little")
    asyncio.run(run(options))


if __name__ == "__main__":
    main()
