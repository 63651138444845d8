"""The host's side of the guest protocol: one Unix socket, in one folder, for one run.

Everything that arrives is the agent's word: it can be wrong, hostile or endless, and only ever harms
its own run. What is acknowledged to the guest is on disk, so a runtime that dies loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import structlog
from pydantic import ValidationError

from sandbox.artifact_intake import ArtifactIntake
from sandbox.guest_frames import (
    AgentExit,
    AllSent,
    ArtifactBegin,
    ArtifactEnd,
    GuestHello,
    GuestProtocolError,
    frame,
    json_frame,
    parse_output,
    read_frame,
)
from sandbox.guest_listener import GuestListener
from sandbox.run_folder import RunFolder
from sandbox.spec import Limits
from sandbox.spool import OutputSpool

log = structlog.get_logger(__name__)

_MAX_UNREAD_REPLIES = 256 * 1024
_MOST_PENANCE_SECONDS = 30.0


class Bridge:
    """Spool, artifacts and the guest's connection of one run.

    Args:
        folder: Where it listens and keeps.
        limits: Those of output and artifacts are held here.
        lease: Answers the seconds left of the run's lease.
        listener: One at which the guest is already; None makes one.

    Attributes:
        exit: The guest's word on the agent's end, once it came.
        complete: Set when output and artifacts are all here; the guest then waits for ``finish``.
        over_limit: Set when the agent wrote more than it may.
    """

    def __init__(
        self,
        folder: RunFolder,
        limits: Limits,
        lease: Callable[[], float],
        listener: GuestListener | None = None,
    ) -> None:
        self._folder = folder
        self._lease = lease
        self.spool = OutputSpool(folder.state, limits.output_bytes)
        self.intake = ArtifactIntake(folder.artifacts, folder.state / "artifacts.jsonl", limits.artifact_bytes)
        self.exit: AgentExit | None = None
        self.first_byte: Callable[[], None] | None = None
        self.complete = asyncio.Event()
        self.over_limit = asyncio.Event()
        self.connected = asyncio.Event()
        self._listener = listener or GuestListener(self.attend)
        self._listener.attend = self.attend
        self._job: dict[str, object] | None = None
        self._waits = False
        self._silent = False
        self._resumed = False
        self._writer: asyncio.StreamWriter | None = None
        self._sessions: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._finishing = False
        self._penance = 0.1
        self._closing = asyncio.Event()
        self._syncing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listens. A socket left by an earlier process is replaced; the guest finds the new one."""
        await self._listener.start(self._folder.bridge)

    async def reopen(self) -> None:
        """Listens in a new folder, for another sandbox: the guest of the one before is sent away, and never comes."""
        self._listener.close()
        for writer in self._sessions.values():
            writer.write(frame(b"F"))
            writer.close()
        await asyncio.gather(*self._sessions, return_exceptions=True)
        self.connected.clear()
        await asyncio.to_thread(self._folder.renew_bridge)
        await self.start()

    async def attend(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: GuestHello | None = None
    ) -> None:
        """Serves one connection to its end; ``hello`` is given where it was read already."""
        task = asyncio.current_task()
        assert task is not None
        if self.over_limit.is_set() or self._closing.is_set():
            writer.close()
            return
        if self._writer is not None:
            self._writer.close()
        self._writer = writer
        self._sessions[task] = writer
        try:
            await self._session(reader, writer, hello)
        except (GuestProtocolError, ValidationError) as error:
            log.warning("guest_spoke_nonsense", error=str(error)[:200])
            # It will be back at once, with the same: the wait is doubled each time.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self._penance)
            self._penance = min(self._penance * 2, _MOST_PENANCE_SECONDS)
        except OSError as error:
            log.warning("guest_connection_failed", error=str(error)[:200])
        finally:
            self.intake.abandon()
            self._sessions.pop(task, None)
            if self._writer is writer:
                self._writer = None
            writer.close()

    async def _session(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: GuestHello | None
    ) -> None:
        if hello is None:
            first = await read_frame(reader)
            if first is None or first[0] != b"H":
                return
            hello = GuestHello.model_validate_json(first[1])
        offset = await self.spool.make_durable()
        self._reply(writer, json_frame(b"W", output_offset=offset, artifacts_done=self.intake.done))
        self._reply(writer, self._lease_frame())
        self._resumed = False
        self._waits = hello.waiting
        self._say_job()
        self.connected.set()
        if self._finishing:
            self._reply(writer, frame(b"F"))
        while (received := await read_frame(reader)) is not None:
            if self._writer is not writer:
                return
            self._receive(writer, *received)
            if self.over_limit.is_set():
                return

    def _receive(self, writer: asyncio.StreamWriter, kind: bytes, payload: bytes) -> None:
        match kind:
            case b"O":
                self._receive_output(writer, payload)
            case b"X":
                self.exit = AgentExit.model_validate_json(payload)
            case b"A":
                self.intake.begin(ArtifactBegin.model_validate_json(payload))
            case b"D":
                self.intake.data(payload)
            case b"E":
                path = self.intake.end(ArtifactEnd.model_validate_json(payload))
                self._reply(writer, json_frame(b"C", path=path))
            case b"Z":
                self._receive_all_sent(AllSent.model_validate_json(payload))
            case _:
                pass  # A frame of a later version is passed over.

    def _receive_output(self, writer: asyncio.StreamWriter, payload: bytes) -> None:
        if self.first_byte is not None:
            self.first_byte()
            self.first_byte = None
        self.spool.append(parse_output(payload))
        if self.spool.over_limit:
            self.over_limit.set()
        if self._syncing is None or self._syncing.done():
            self._syncing = asyncio.create_task(self._acknowledge(writer))

    async def _acknowledge(self, writer: asyncio.StreamWriter) -> None:
        """Acknowledges what is durable, as often as the disk allows."""
        while self.spool.durable < self.spool.end and not writer.is_closing():
            offset = await self.spool.make_durable()
            with contextlib.suppress(GuestProtocolError, OSError):
                self._reply(writer, json_frame(b"K", offset=offset))

    def _receive_all_sent(self, sent: AllSent) -> None:
        if self.exit is None or self.exit.output_total > self.spool.end:
            raise GuestProtocolError("the end came before the output")
        for skipped in sent.skipped:
            self.intake.skip(skipped)
        self.complete.set()

    def _reply(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if writer.transport.get_write_buffer_size() > _MAX_UNREAD_REPLIES:
            raise GuestProtocolError("it does not read its replies")
        writer.write(data)

    def signal(self, name: str) -> bool:
        """Asks the guest to signal the agent; False when no guest is connected."""
        return self._send(json_frame(b"S", signal=name))

    def tell_lease(self) -> None:
        """Tells the guest of a renewal; one that is not connected is told when it is."""
        if not self._silent:
            self._send(self._lease_frame())

    def give_job(self, job: dict[str, object]) -> None:
        """Lets a guest that waits start its agent.

        INVARIANT: the sandbox is recorded as started before this is called; so an agent that may have run is
        never taken for one that has not.
        """
        self._job = job
        self._say_job()

    def _say_job(self) -> None:
        """Says the job to a guest that has none yet: it may have been lost with an earlier connection."""
        if self._waits and self._job is not None:
            self._send(json_frame(b"J", **self._job, lease_seconds=self._lease(), written_at=time.time()))

    def hold_lease(self, hold: bool) -> None:
        """Tells nothing of renewals meanwhile: a paused guest would read them late, and count from then."""
        self._silent = hold

    def tell_resumed(self) -> None:
        """Says what is left of the lease to a guest that goes on after a pause, now or when it connects."""
        self._resumed = True
        if self._send(self._lease_frame()):
            self._resumed = False

    def end_guest(self) -> None:
        """Ends everything inside by the guest's own hand, where the engine cannot: its lease is over."""
        self._send(json_frame(b"L", seconds=0))

    def _lease_frame(self) -> bytes:
        resumed = {"resumed": True} if self._resumed else {}
        return json_frame(b"L", seconds=self._lease(), **resumed)

    async def finish(self) -> None:
        """Lets the guest end, with the agent's exit code: everything is here and durable."""
        await self.spool.make_durable()
        self._finishing = True
        self._send(frame(b"F"))

    def _send(self, data: bytes) -> bool:
        writer = self._writer
        if writer is None or writer.is_closing():
            return False
        with contextlib.suppress(GuestProtocolError, OSError):
            self._reply(writer, data)
            return True
        return False

    async def drain(self, seconds: float) -> None:
        """Reads what is left in the socket of a guest that has ended."""
        if self._sessions:
            await asyncio.wait(set(self._sessions), timeout=seconds)

    async def close(self) -> None:
        """Stops listening and makes what came durable. The sandbox lives on and comes back."""
        self._listener.close()
        self._closing.set()
        # Closed and not cancelled: a cancelled session is an error to asyncio's streams.
        for writer in self._sessions.values():
            writer.close()
        await asyncio.gather(*self._sessions, return_exceptions=True)
        if self._syncing is not None:
            await asyncio.gather(self._syncing, return_exceptions=True)
        await self.spool.make_durable()
        self.spool.finish()
