"""The audit trail can be checked by somebody who trusts neither the operator nor the database."""

from __future__ import annotations

import pytest

from tests.e2e import work
from tests.e2e.client import Console, User
from tests.e2e.recount import Recount
from workers.stack.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.docker, pytest.mark.timeout(300)]


async def test_the_trail_is_whole_and_tampering_is_found(
    stack: Stack, console: Console, gina: User, recount: Recount
) -> None:
    asked = await gina.submit(work.item(await work.sleeper(gina), "L3", parameters={"seconds": 0.5}))
    georg, greta = console.user("georg"), console.user("greta")
    await georg.decide(await georg.approval_of(asked.id), "reject", "no")
    await gina.until(asked.id, {"rejected"}, 30)
    report = await greta.verify()
    assert report.whole
    assert report.events == report.head_seq
    assert recount.broken_chains() == []

    (victim,) = recount.rows(
        "SELECT tenant_id, seq, data::text AS data FROM audit_events"
        " WHERE work_item_id = %(item)s AND kind = 'approval.decided'",
        item=asked.id,
    )
    # A superuser who switches triggers off: the one whom grants do not stop.
    with stack.postgres.connect(stack.credentials, "awgp") as attacker:
        with pytest.raises(Exception, match="append-only"):
            attacker.execute("UPDATE audit_events SET summary = 'approved' WHERE seq = %(seq)s", victim)
        attacker.execute("SET session_replication_role = replica")
        forged = {**victim, "forged": victim["data"].replace("reject", "approve")}
        where = "WHERE tenant_id = %(tenant_id)s AND seq = %(seq)s"
        attacker.execute(f"UPDATE audit_events SET data = %(forged)s::jsonb {where}", forged)
        try:
            found = await greta.verify()
            assert (found.whole, found.first_bad_seq) == (False, victim["seq"])
            assert recount.broken_chains() == ["globex"]
        finally:
            attacker.execute(f"UPDATE audit_events SET data = %(data)s::jsonb {where}", victim)
    assert (await greta.verify()).whole
    assert recount.broken_chains() == []
