"""One authenticated runtime on the broker's side."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets

import structlog
from aiohttp import WSMsgType, web
from pydantic import ValidationError

from sandbox.link.backend import ConnectedRuntime, RuntimeBackend, RuntimeUnavailableError
from sandbox.link.messages import (
    Ended,
    EndedAck,
    Heartbeat,
    Log,
    LogAck,
    Place,
    Placed,
    RunRef,
    Started,
    Used,
    encode,
    parse_from_runtime,
)
from sandbox.link.places import Places, Seat
from sandbox.spec import Value

log = structlog.get_logger(__name__)

_QUEUED_REPORTS = 256


class RuntimeConnection:
    """A WebSocket whose other end has proved which runtime it is."""

    def __init__(self, socket: web.WebSocketResponse, runtime: ConnectedRuntime, backend: RuntimeBackend) -> None:
        self.runtime = runtime
        self.seat = Seat(runtime.runtime_id, runtime.tenant_id, runtime.capacity)
        self.unheard: Heartbeat | None = None
        self.newest_heartbeat: int | None = None
        self.paused: frozenset[RunRef] = frozenset()
        self.session_token = secrets.token_urlsafe(32)
        self._token_hash = hashlib.sha256(self.session_token.encode()).digest()
        self._socket = socket
        self._backend = backend
        self._answers: dict[RunRef, asyncio.Future[Placed]] = {}
        # Storing may be slow; heartbeats and answers must not wait behind it.
        self._reports: asyncio.Queue[Started | Log | Used | Ended] = asyncio.Queue(_QUEUED_REPORTS)

    def has_token(self, token: str) -> bool:
        """Compares in constant time."""
        return hmac.compare_digest(hashlib.sha256(token.encode()).digest(), self._token_hash)

    async def send(self, message: Value) -> bool:
        """Sends a frame; False when the connection has ended."""
        try:
            await self._socket.send_str(encode(message))
        except (ConnectionError, RuntimeError):
            return False
        return True

    async def ask_place(self, run: RunRef, message: Place) -> Placed:
        """Sends a placement and waits for its answer."""
        answer: asyncio.Future[Placed] = asyncio.get_running_loop().create_future()
        self._answers[run] = answer
        try:
            if not await self.send(message):
                raise RuntimeUnavailableError("the connection ended")
            placed = await answer
            if placed.accepted:
                self.seat.live.add(run)
            return placed
        finally:
            self._answers.pop(run, None)

    async def serve(self, places: Places) -> None:
        """Reads until the connection ends."""
        reports = asyncio.create_task(self._store_reports(places))
        try:
            async for frame in self._socket:
                if frame.type is not WSMsgType.TEXT:
                    break
                await self._receive(frame.data, places)
        except ValidationError as error:
            log.warning("runtime_spoke_nonsense", error=str(error)[:300])
            await self.close("a frame could not be read")
        finally:
            reports.cancel()
            await asyncio.gather(reports, return_exceptions=True)
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(RuntimeUnavailableError("the connection ended"))

    async def close(self, why: str) -> None:
        """Ends the connection."""
        await self._socket.close(message=why.encode()[:120])

    async def _receive(self, text: str, places: Places) -> None:
        message = parse_from_runtime(text)
        match message:
            case Heartbeat():
                self.unheard, self.newest_heartbeat = message, message.heartbeat_id
                self.paused = frozenset(message.paused)
                places.heard(self.seat, message.live)
                await self._backend.on_heartbeat(self.runtime, message.live)
            case Placed():
                await self._backend.on_placed(self.runtime, message)
                answer = self._answers.get(_ref(message))
                if answer is not None and not answer.done():
                    answer.set_result(message)
            case Started() | Log() | Ended():
                await self._reports.put(message)
            case Used():
                # Only for watching: it waits for nothing, and the next one says it better.
                if not self._reports.full():
                    self._reports.put_nowait(message)
            case _:
                await self.close("hello was already said")

    async def _store_reports(self, places: Places) -> None:
        while True:
            message = await self._reports.get()
            try:
                await self._store(message, places)
            except Exception:
                # Unacknowledged, so the runtime says it again after it has come back.
                log.exception("report_not_stored", report=message.type)
                await self.close("a report could not be stored")
                return

    async def _store(self, message: Started | Log | Used | Ended, places: Places) -> None:
        run = _ref(message)
        match message:
            case Started():
                await self._backend.on_started(self.runtime, run, message.container_id)
            case Log():
                offset = await self._backend.on_log(self.runtime, run, message.records)
                await self.send(LogAck(run_id=run.run_id, attempt=run.attempt, offset=offset))
            case Used():
                await self._backend.on_used(self.runtime, message)
            case Ended():
                await self._backend.on_ended(self.runtime, run, message.result)
                await self.send(EndedAck(run_id=run.run_id, attempt=run.attempt))
                places.heard(self.seat, self.seat.live - {run})


def _ref(message: Placed | Started | Log | Used | Ended) -> RunRef:
    return RunRef(run_id=message.run_id, attempt=message.attempt)
