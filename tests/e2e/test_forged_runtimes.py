"""Runtimes that are not who they say, and one that was cut off and comes back."""

from __future__ import annotations

from uuid import UUID, uuid4

import docker
import pytest

from tests.e2e import work
from tests.e2e.client import Console, User
from tests.e2e.cut_off import OWNER, CutOff
from tests.e2e.link_forger import enrol, hello, read_identity
from tests.e2e.polling import eventually
from tests.e2e.recount import Recount, expect_well
from workers.stack.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.docker, pytest.mark.timeout(600)]


async def test_a_runtime_under_another_tenants_name_is_refused_and_audited(
    stack: Stack, console: Console, recount: Recount
) -> None:
    names = {slug: read_identity(stack, slug) for slug in ("acme", "globex")}
    acme, globex = names["acme"], names["globex"]
    tried = {
        "globex's key under acme's name": (acme.names.runtime_id, acme.names.tenant_id, globex.key),
        "globex's runtime in acme's tenant": (globex.names.runtime_id, acme.names.tenant_id, globex.key),
        "acme's runtime in globex's tenant": (acme.names.runtime_id, globex.names.tenant_id, globex.key),
        "a runtime that nobody knows": (uuid4(), acme.names.tenant_id, globex.key),
    }
    counted = "SELECT count(*) FROM audit_events WHERE tenant_id = %(tenant)s AND kind = 'runtime.refused'"
    before = {slug: recount.value(counted, tenant=known.names.tenant_id) for slug, known in names.items()}
    for words, (runtime_id, tenant_id, key) in tried.items():
        answer = await hello(console.session, stack, runtime_id, tenant_id, key)
        assert answer["type"] == "refused", words
    after = {slug: recount.value(counted, tenant=known.names.tenant_id) for slug, known in names.items()}
    # Audited where the real runtime is: twice for Acme's name, once for Globex's; the unknown one is counted as noise.
    assert {slug: after[slug] - before[slug] for slug in after} == {"acme": 2, "globex": 1}
    assert recount.value("SELECT sum(seen) FROM noise WHERE kind = 'runtime_unknown'") >= 1
    assert recount.broken_chains() == []


async def test_an_enrolment_token_is_good_once(stack: Stack, armin: User, console: Console, recount: Recount) -> None:
    token = (await armin.call("POST", "/v1/runtimes/enrolment-tokens"))["token"]
    first = await enrol(console.session, stack, token)
    assert first.status == 200
    enrolled = await first.json()
    second = await enrol(console.session, stack, token)
    assert (second.status, second.content_type) == (403, "application/problem+json")
    assert (await enrol(console.session, stack, "x" * 43)).status == 403
    kinds = recount.rows(
        "SELECT kind FROM audit_events WHERE tenant_id = %(tenant)s AND kind LIKE 'runtime.%%'"
        " ORDER BY seq DESC LIMIT 2",
        tenant=UUID(enrolled["tenant_id"]),
    )
    assert [row["kind"] for row in kinds] == ["runtime.enrolment_refused", "runtime.enrolled"]


async def test_a_runtime_that_was_cut_off_comes_back_to_nothing(
    stack: Stack, console: Console, cut_off: CutOff, recount: Recount
) -> None:
    henry = console.user(OWNER)
    leases = recount.rows(
        "SELECT work_item_id, id, lease_until FROM runs WHERE work_item_id = ANY(%(items)s)",
        items=[cut_off.once, cut_off.again],
    )
    over = max(row["lease_until"] for row in leases)
    # The sandboxes end with the lease though nobody is there to kill them: their own guests count it.
    sandboxes = [row["id"] for row in leases]
    await eventually(lambda: not running_containers(stack, sandboxes), 150, "the sandboxes ended by themselves")
    ended_after = recount.value("SELECT extract(epoch FROM clock_timestamp() - %(over)s)", over=over)
    print(f"sandboxes were gone {ended_after:+.0f} s after the lease's end, by the database's clock")

    # By the database's clock, 30 s after the lease's end and not earlier, the runs are gone.
    failed = await henry.until(cut_off.once, {"failed"}, 120)
    assert (failed.outcome, failed.attempt) == ("runtime_gone", 1)
    assert failed.ended_at is not None
    assert (failed.ended_at - over).total_seconds() >= 29
    await henry.until(cut_off.again, {"queued"}, 60)

    cut_off.thaw()
    await henry.until(cut_off.again, lambda item: item.status == "running" and item.attempt == 2, 120)
    await eventually(lambda: two_nonces(henry, cut_off.again), 90, "the second attempt says something")
    assert not running_containers(stack, [row["id"] for row in leases if row["work_item_id"] == cut_off.once])
    await henry.cancel(cut_off.again)
    await henry.until(cut_off.again, {"cancelled"}, 60)

    # What the runtime had to say of attempts that were not its any more is audited, and changes nothing.
    stale = "SELECT count(*) FROM audit_events WHERE kind = 'run.stale_runtime' AND subject = ANY(%(runs)s)"
    runs = [f"run/{row['id']}" for row in leases]
    await eventually(lambda: recount.value(stale, runs=runs) >= 1, 60, "the stale runtime is audited")
    assert (await henry.item(cut_off.once)).outcome == "runtime_gone"
    assert len(work.Executions.of(await henry.output(cut_off.once)).nonces) == 1
    attempts = recount.rows(
        "SELECT attempt, count(*) AS claims FROM warrants WHERE work_item_id = %(item)s AND claimed_at IS NOT NULL"
        " GROUP BY attempt ORDER BY attempt",
        item=cut_off.again,
    )
    assert [(row["attempt"], row["claims"]) for row in attempts] == [(1, 1), (2, 1)]
    expect_well(recount, [cut_off.once, cut_off.again])


def running_containers(stack: Stack, runs: list[UUID]) -> list[str]:
    """Ids of these runs' containers that run."""
    client = docker.DockerClient(base_url=stack.engine.host, timeout=30)
    try:
        found = [client.containers.list(ignore_removed=True, filters={"label": f"awgp.run={run}"}) for run in runs]
        return [str(container.id) for containers in found for container in containers]
    finally:
        client.close()


async def two_nonces(user: User, item_id: UUID) -> bool:
    return len(work.Executions.of(await user.output(item_id)).nonces) == 2
