"""The runtime's side of the link: connects, proves itself, reports, obeys, and comes back for ever."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
from collections.abc import Coroutine
from typing import Any

import aiohttp
import structlog
from joserfc.jwk import KeySet
from pydantic import ValidationError

from sandbox.course import Course
from sandbox.identity import Identity
from sandbox.keeper import RunKeeper
from sandbox.link.blob_client import BlobClient
from sandbox.link.messages import (
    LINK_PATH,
    MAX_FRAME_BYTES,
    BrokerMessage,
    Challenge,
    EndedAck,
    Heartbeat,
    Hello,
    Kill,
    LogAck,
    Pause,
    Place,
    Refused,
    Renewed,
    Resume,
    RunRef,
    RuntimeFacts,
    Suspend,
    Welcome,
    encode,
    parse_from_broker,
)
from sandbox.link.reporter import report
from sandbox.spec import Value
from sandbox.status_file import RuntimeState, StatusFile

log = structlog.get_logger(__name__)

_HELLO_SECONDS = 15.0
_LEASE_CHECK_SECONDS = 0.5
_REAP_SECONDS = 60.0


class _ConnectionEndedError(Exception):
    """Try again."""


class RuntimeLink:
    """Keeps one connection to a broker.

    Args:
        base_url: ``http(s)://…`` of the broker; the WebSocket is under the same address.
        warrant_jwks: Keys of warrants; None takes what the broker's welcome says.
        status: Where it is said whether a broker has welcomed this runtime.
    """

    def __init__(
        self,
        base_url: str,
        identity: Identity,
        keeper: RunKeeper,
        blobs: BlobClient,
        facts: RuntimeFacts,
        warrant_jwks: KeySet | None = None,
        status: StatusFile | None = None,
    ) -> None:
        self._status = status
        self._url = base_url + LINK_PATH
        self._identity = identity
        self._keeper = keeper
        self._blobs = blobs
        self._facts = facts
        self._pinned_jwks = warrant_jwks
        self._beats = 0

    async def run(self) -> None:
        """Connects for ever; leases are counted whether connected or not."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._count_leases())
            group.create_task(self._reap())
            group.create_task(self._connect_for_ever())

    async def _count_leases(self) -> None:
        while True:
            self._keeper.end_expired()
            await asyncio.sleep(_LEASE_CHECK_SECONDS)

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(_REAP_SECONDS)
            try:
                await self._keeper.reap()
            except Exception as error:
                log.warning("reaping_failed", error=str(error)[:200])

    async def _connect_for_ever(self) -> None:
        pause = 0.2
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._connect()
            except (
                aiohttp.ClientError,
                OSError,
                TimeoutError,
                ValidationError,
                _ConnectionEndedError,
            ) as error:
                words = str(error)[:200] or type(error).__name__
                log.warning("waiting_for_broker", error=words)
                self._say(RuntimeState.CONNECTING, words)
            if asyncio.get_running_loop().time() - began > 30:
                pause = 0.2
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (spreads, guards nothing)
            pause = min(pause * 2, 5.0)

    async def _connect(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.ws_connect(self._url, heartbeat=20.0, max_msg_size=MAX_FRAME_BYTES) as socket,
        ):
            async with asyncio.timeout(_HELLO_SECONDS):
                welcome = await self._introduce(socket)
            log.info("connected", live=len(self._keeper.live))
            if self._keeper.upstreams is not None:
                self._keeper.upstreams.offer(welcome.gateway_url, welcome.api_url)
            self._say(RuntimeState.CONNECTED)
            self._blobs.session(welcome.session_token)
            try:
                await _Session(socket, self._keeper, self._blobs, welcome, self._jwks(welcome), self).serve()
            finally:
                self._blobs.session(None)

    def _say(self, state: RuntimeState, words: str = "") -> None:
        if self._status is not None:
            self._status.say(state, words)

    async def _introduce(self, socket: aiohttp.ClientWebSocketResponse) -> Welcome:
        challenge = await receive(socket)
        if not isinstance(challenge, Challenge):
            raise _ConnectionEndedError("the broker did not begin with a challenge")
        names = self._identity.names
        hello = Hello(
            runtime_id=names.runtime_id,
            tenant_id=names.tenant_id,
            signature=self._identity.prove(base64.b64decode(challenge.nonce)),
            capacity=self._keeper.capacity,
            facts=self._facts,
            live=self._keeper.live,
        )
        await socket.send_str(encode(hello))
        answer = await receive(socket)
        if isinstance(answer, Refused):
            raise _ConnectionEndedError(f"refused: {answer.reason}")
        if not isinstance(answer, Welcome):
            raise _ConnectionEndedError("the broker did not welcome")
        return answer

    def _jwks(self, welcome: Welcome) -> KeySet | None:
        if self._pinned_jwks is not None:
            return self._pinned_jwks
        try:
            return parse_jwks(welcome.warrant_jwks)
        except ValueError as error:
            log.warning("broker_sent_no_keys", error=str(error)[:200])
            return None

    def next_beat(self) -> int:
        """Numbers heartbeats over all connections of this process."""
        self._beats += 1
        return self._beats


class _Session:
    """One connection after its welcome."""

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        keeper: RunKeeper,
        blobs: BlobClient,
        welcome: Welcome,
        jwks: KeySet | None,
        link: RuntimeLink,
    ) -> None:
        self._socket = socket
        self._keeper = keeper
        self._blobs = blobs
        self._welcome = welcome
        self._jwks = jwks
        self._link = link
        self._tasks: set[asyncio.Task[None]] = set()
        self._reporters: dict[RunRef, asyncio.Task[None]] = {}
        self._beat_now = asyncio.Event()

    async def serve(self) -> None:
        """Reports and obeys until the connection ends."""
        self._keeper.on_course = self._report
        for course in list(self._keeper.courses.values()):
            self._report(course)
        self._spawn(self._beat())
        try:
            while True:
                self._obey(await receive(self._socket))
        finally:
            self._keeper.on_course = lambda course: None
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._until_closed(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _until_closed(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (ConnectionError, aiohttp.ClientError):
            await self._socket.close()
        except Exception:
            # What was not acknowledged is said again over the next connection.
            log.exception("session_task_failed")
            await self._socket.close()

    async def _send(self, message: Value) -> None:
        await self._socket.send_str(encode(message))

    def _report(self, course: Course) -> None:
        if course.run not in self._reporters:
            self._reporters[course.run] = self._spawn(report(course, self._send, self._blobs))

    async def _beat(self) -> None:
        while True:
            beat = self._link.next_beat()
            self._keeper.heartbeat_sent(beat)
            keeper = self._keeper
            await self._send(Heartbeat(heartbeat_id=beat, free=keeper.free, live=keeper.live, paused=keeper.paused))
            self._beat_now.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._welcome.heartbeat_seconds):
                    await self._beat_now.wait()

    def _obey(self, message: BrokerMessage) -> None:
        match message:
            case Place():
                self._spawn(self._place(message))
            case Renewed():
                self._keeper.renewed(message, self._welcome.lease_seconds)
            case Kill():
                self._keeper.kill(RunRef(run_id=message.run_id, attempt=message.attempt), message.reason)
            case Pause() | Resume() | Suspend():
                self._keeper.ask(message)
            case LogAck():
                course = self._keeper.courses.get(RunRef(run_id=message.run_id, attempt=message.attempt))
                if course is not None and message.offset > course.acked:
                    course.acked = message.offset
                    course.tell()
            case EndedAck():
                run = RunRef(run_id=message.run_id, attempt=message.attempt)
                reporter = self._reporters.pop(run, None)
                if reporter is not None:
                    reporter.cancel()
                self._keeper.acknowledged(run)
                self._beat_now.set()
            case Challenge() | Welcome() | Refused():
                raise _ConnectionEndedError("the broker began anew in the middle")

    async def _place(self, message: Place) -> None:
        await self._send(await self._keeper.place(message, self._jwks))


async def receive(socket: aiohttp.ClientWebSocketResponse) -> BrokerMessage:
    """Reads one frame; raises ``_ConnectionEndedError`` when there is no other."""
    frame = await socket.receive()
    if frame.type is not aiohttp.WSMsgType.TEXT:
        raise _ConnectionEndedError("the connection ended")
    return parse_from_broker(frame.data)


def parse_jwks(text: str) -> KeySet:
    """Reads a JWK set; raises ``ValueError``."""
    return KeySet.import_key_set(json.loads(text))
