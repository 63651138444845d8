"""Runtimes that are not who they say they are."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from tests.e2e.client import Console, User
from tests.e2e.link_forger import enrol, hello, read_identity
from tests.e2e.recount import Recount
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
