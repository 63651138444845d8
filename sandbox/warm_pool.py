"""Sandboxes prepared in advance: each for one run, of one image, within one set of limits.

A runtime serves one tenant, so its pool is that tenant's alone. A prepared sandbox is an ordinary one whose guest
waits: no agent has ever run in it, and none but the one that claims it ever will.

INVARIANT: a claim takes the sandbox out of the pool at once and for good; it dies with the run that has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import structlog
from pydantic import Field, TypeAdapter

from sandbox.image_command import fits_digest
from sandbox.link.messages import RunRef
from sandbox.run_folder import RunFolder
from sandbox.runner import Preparer, SandboxHandle, StartFailedError, StartUnsureError
from sandbox.spec import Limits, RunSpec, Value
from sandbox.waiting_guest import WaitingGuest

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 15.0
_QUIET_SECONDS = 0.5
"""After a claim, and while runs are being started, nothing is prepared: they need the processors more."""
_MOST_QUIET_SECONDS = 30.0
_READY_SECONDS = 30.0
_CLOSE_SECONDS = 10.0
_PREFIX = "prepared-"
_MOST_SAID = 128 * 1024
"""A longer job is started cold: a frame to the guest has its end."""


class Warm(Value):
    """What is to be kept ready.

    Attributes:
        image: Reference known to the engine.
        count: How many.
        limits: Those of the runs that may claim it.
    """

    image: str = Field(min_length=1, max_length=512)
    count: int = Field(ge=1, le=256)
    limits: Limits = Limits()


_KINDS: TypeAdapter[tuple[Warm, ...]] = TypeAdapter(tuple[Warm, ...])


def read_warm(text: str) -> tuple[Warm, ...]:
    """Reads ``image=count,…`` or a JSON list of ``Warm``; raises ``ValueError`` that says what is wrong."""
    if text.lstrip().startswith("["):
        return _KINDS.validate_json(text)
    kinds: list[dict[str, str]] = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        image, equals, count = entry.rpartition("=")
        if not equals:
            raise ValueError(f"{entry!r} is not image=count")
        kinds.append({"image": image, "count": count})
    return _KINDS.validate_python(tuple(kinds))


@dataclass(eq=False)
class Prepared:
    """One sandbox that waits for its run."""

    name: str
    kind: Warm
    image: dict[str, Any]
    mounts: Path
    handle: SandboxHandle
    guest: WaitingGuest

    def fits(self, spec: RunSpec, digest: str) -> bool:
        """Whether it is what this run would be given cold: the image by its digest, and each limit of a container."""
        return self.guest.here and fits_digest(self.image, digest) and _box(self.kind.limits) == _box(spec.limits)

    async def discard(self) -> None:
        """Ends and removes it."""
        self.guest.close()
        await self.handle.kill()
        await self.handle.remove()
        await asyncio.to_thread(shutil.rmtree, self.mounts, ignore_errors=True)


def _box(limits: Limits) -> tuple[int, ...]:
    """The limits that a container is made with; the others are held outside, run by run."""
    named = limits.model_dump(exclude={"output_bytes", "artifact_bytes", "wall_seconds"})
    return tuple(named[name] for name in sorted(named))


def _size(spec: RunSpec) -> int:
    """About what its job has in bytes."""
    words = (*(spec.command or ()), *(spec.entrypoint or ()), *spec.env, *spec.env.values())
    return sum(len(word.encode()) for word in words)


class WarmPool:
    """Keeps the prepared sandboxes of this runtime.

    Args:
        preparer: What makes them.
        run_dir: Parent of what is bind-mounted.
        tenant_id: Whose runtime this is.
        kinds: What is to be kept ready.

    Attributes:
        busy: Answers whether runs are being started.
    """

    def __init__(self, preparer: Preparer, run_dir: Path, tenant_id: UUID, kinds: tuple[Warm, ...]) -> None:
        self.busy: Callable[[], bool] = lambda: False
        self._preparer = preparer
        self._run_dir = run_dir
        self._tenant_id = tenant_id
        self._kinds = kinds
        self._members: list[Prepared] = []
        self._names: set[str] = set()
        self._claimed_at = 0.0
        self._look = asyncio.Event()
        self._preparing: asyncio.Task[Prepared] | None = None

    @property
    def ready(self) -> int:
        """How many could be claimed now."""
        return sum(member.guest.here for member in self._members)

    async def claim(self, spec: RunSpec) -> Prepared | None:
        """Takes one that fits, for good."""
        if not self._members or _size(spec) > _MOST_SAID:
            return None
        digest = spec.image_digest
        if digest is None:
            try:
                digest = (await self._preparer.image(spec.image))["Id"]
            except (StartFailedError, StartUnsureError):
                return None
        for member in self._members:
            if member.fits(spec, digest):
                self._members.remove(member)
                self._claimed_at = time.monotonic()
                self._look.set()
                return member
        return None

    def knows(self, name: str) -> bool:
        """Whether it waits here, is being prepared, or was claimed by a run that is not recorded as started yet."""
        return name in self._names

    def recorded(self, member: Prepared) -> None:
        """The run that claimed it answers for it from now on."""
        self._names.discard(member.name)

    def sweep(self) -> None:
        """Removes the folders that an earlier process left; their sandboxes fall to the reaper. Called once."""
        for left in self._run_dir.glob(_PREFIX + "*"):
            shutil.rmtree(left, ignore_errors=True)

    async def keep(self) -> None:
        """Fills up for ever."""
        while True:
            try:
                await self._fill()
            except (StartFailedError, StartUnsureError) as error:
                log.warning("not_prepared", error=error.detail)
            except Exception:
                # Runs are started cold meanwhile; nothing else depends on it.
                log.exception("warm_pool_failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._look.wait()
            self._look.clear()

    async def _fill(self) -> None:
        for kind in self._kinds:
            image = await self._preparer.image(kind.image)
            await self._drop_stale(kind, image["Id"])
            while sum(member.kind == kind for member in self._members) < kind.count:
                await self._quiet()
                self._preparing = asyncio.create_task(self._prepare(image, kind))
                self._members.append(await asyncio.shield(self._preparing))
                self._preparing = None

    async def _drop_stale(self, kind: Warm, image_id: str) -> None:
        """Its guest has gone, or the name of its image means another one by now."""
        for member in [member for member in self._members if member.kind == kind]:
            if not member.guest.here or member.image["Id"] != image_id:
                self._members.remove(member)
                await member.discard()
                self._names.discard(member.name)

    async def _quiet(self) -> None:
        until = time.monotonic() + _MOST_QUIET_SECONDS
        while time.monotonic() < until and self._is_loud():  # noqa: ASYNC110 (time itself has no event)
            await asyncio.sleep(_QUIET_SECONDS / 2)

    def _is_loud(self) -> bool:
        return self.busy() or time.monotonic() - self._claimed_at < _QUIET_SECONDS

    async def _prepare(self, image: dict[str, Any], kind: Warm) -> Prepared:
        run = RunRef(run_id=uuid4(), attempt=1)
        name = run.run_id.hex
        mounts = self._run_dir / (_PREFIX + name)
        folder = RunFolder(mounts / "state", mounts)  # The state is the run's that will claim it.
        self._names.add(name)
        guest = WaitingGuest()
        try:
            await asyncio.to_thread(folder.make_mounts)
            await guest.listen(folder.bridge)
            spec = self._spec(run, image["Id"], kind.limits)
            handle = await self._preparer.prepare(spec, folder, name)
            member = Prepared(name, kind, image, mounts, handle, guest)
            try:
                await guest.wait(_READY_SECONDS)
            except TimeoutError:
                await member.discard()
                raise StartUnsureError("its guest did not come", away=False) from None
            log.info("sandbox_prepared", image=kind.image, name=name)
            return member
        except BaseException:
            self._names.discard(name)
            guest.close()
            shutil.rmtree(mounts, ignore_errors=True)
            raise

    def _spec(self, run: RunRef, image: str, limits: Limits) -> RunSpec:
        return RunSpec(
            run_id=run.run_id,
            work_item_id=run.run_id,
            tenant_id=self._tenant_id,
            assistant_id=run.run_id,
            image=image,
            limits=limits,
        )

    async def close(self) -> None:
        """Removes what nobody claimed; their guests would leave by themselves a little later."""
        members, self._members = self._members, []
        if self._preparing is not None:
            with contextlib.suppress(StartFailedError, StartUnsureError, OSError, TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    members.append(await self._preparing)
        await asyncio.gather(*(member.discard() for member in members), return_exceptions=True)
