"""A question that nobody answers: asked early in the session, so that its time passes beside other tests."""

from __future__ import annotations

from uuid import UUID

import yaml

from tests.e2e import work
from tests.e2e.client import Console
from workers.stack.stack import Stack

EXPIRES_SECONDS = 60
"""The shortest that a policy may say."""


async def ask(stack: Stack) -> UUID:
    """Ask for an item whose question expires soon; Globex's policy is as before afterwards."""
    async with Console(stack) as console:
        gina, gregor = console.user("gina"), console.user("gregor")
        before = (await gregor.call("GET", "/v1/policies/current"))["source"]
        policy = yaml.safe_load(before)
        policy["approvals"]["L3"] |= {"expires_after": EXPIRES_SECONDS, "remind_after": []}
        await gregor.call("POST", "/v1/policies", {"source": yaml.safe_dump(policy, sort_keys=False)})
        asked = await gina.submit(work.item(await work.sleeper(gina), "L3", parameters={"seconds": 1}))
        await gregor.call("POST", "/v1/policies", {"source": before})
        return asked.id
