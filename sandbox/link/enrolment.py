"""Becoming a runtime of a tenant: once, with a one-time token."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import structlog

from sandbox.identity import Identity, load_names, own_key, public_key_text, save_names
from sandbox.link.messages import ENROL_PATH, EnrolRequest, EnrolResponse

log = structlog.get_logger(__name__)

_TIMEOUT = aiohttp.ClientTimeout(total=15)


class EnrolmentRefusedError(Exception):
    """Nobody knows this runtime, and its token does not help; a person has to act."""


async def identity_of(state_dir: Path, base_url: str, name: str, token: str | None) -> Identity:
    """Returns the identity in the state folder, or enrols; waits for the broker as long as it takes.

    Raises:
        EnrolmentRefusedError: Not enrolled, and no token or a refused one.
    """
    key = own_key(state_dir)
    names = load_names(state_dir)
    if names is None:
        if not token:
            raise EnrolmentRefusedError("this runtime is not enrolled: give it AWGP_RUNTIME_ENROLMENT_TOKEN")
        request = EnrolRequest(token=token, name=name, public_key=public_key_text(key))
        names = await _enrol(base_url, request)
        save_names(state_dir, names)
        log.info("enrolled", runtime_id=str(names.runtime_id), tenant_id=str(names.tenant_id))
    return Identity(names, key)


async def _enrol(base_url: str, request: EnrolRequest) -> EnrolResponse:
    pause = 0.2
    while True:
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT) as http,
                http.post(base_url + ENROL_PATH, data=request.model_dump_json()) as response,
            ):
                if response.status < 300:
                    return EnrolResponse.model_validate_json(await response.read())
                if response.status < 500:
                    text = (await response.text())[:300]
                    raise EnrolmentRefusedError(f"the broker refused the enrolment: {text}")
                error = f"status {response.status}"
        except (aiohttp.ClientError, TimeoutError) as failure:
            error = str(failure)[:200]
        log.warning("waiting_for_broker", error=error)
        await asyncio.sleep(pause)
        pause = min(pause * 2, 5.0)
