"""A question that nobody answers ends by itself, by the database's clock."""

from __future__ import annotations

from uuid import UUID

import pytest

from tests.e2e.client import Console, ProblemError, User
from tests.e2e.expiring import EXPIRES_SECONDS
from tests.e2e.recount import Recount, expect_well

pytestmark = [pytest.mark.stack, pytest.mark.docker, pytest.mark.timeout(600)]


async def test_a_question_that_nobody_answers_expires(
    expiring: UUID, console: Console, gina: User, recount: Recount
) -> None:
    done = await gina.until(expiring, {"expired"}, EXPIRES_SECONDS + 30)
    assert done.ended_at is not None
    (approval,) = recount.rows("SELECT * FROM approvals WHERE work_item_id = %(item)s", item=expiring)
    assert approval["status"] == "expired"
    asked_for = (approval["expires_at"] - approval["created_at"]).total_seconds()
    assert asked_for == pytest.approx(EXPIRES_SECONDS, abs=1)
    assert 0 <= (done.ended_at - approval["expires_at"]).total_seconds() < 15
    body = {"verdict": "approve", "reason": "too late"}
    with pytest.raises(ProblemError) as late:
        await console.user("georg").call("POST", f"/v1/approvals/{approval['id']}/decision", body)
    assert late.value.status == 409
    expect_well(recount, [expiring])
