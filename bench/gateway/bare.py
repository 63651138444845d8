"""`python -m bench.gateway.bare <port> <upstream>`: FastAPI and aiohttp, and nothing between them.

What a gateway on these two costs before it does anything: no credential, no money, no ledger.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse


def app_for(upstream: str) -> FastAPI:
    """The pass-through."""
    sessions: list[aiohttp.ClientSession] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False) as session:
            sessions.append(session)
            yield

    app = FastAPI(lifespan=lifespan)

    async def complete(request: Request) -> Response:
        body = await request.body()
        answer = await sessions[0].post(
            f"{upstream}/v1/chat/completions", data=body, headers={"Content-Type": "application/json"}
        )
        kind = answer.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            async with answer:
                return Response(await answer.read(), answer.status, media_type=kind)

        async def parts() -> AsyncIterator[bytes]:
            async with answer:
                async for part in answer.content.iter_any():
                    yield part

        return StreamingResponse(parts(), answer.status, media_type=kind)

    app.add_api_route("/llm/v1/chat/completions", complete, methods=["POST"], response_model=None)
    return app


if __name__ == "__main__":
    uvicorn.run(app_for(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)
