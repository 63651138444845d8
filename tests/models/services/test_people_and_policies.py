from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from models.domain.errors import Conflict, Forbidden, InvalidInput, NotFound
from models.domain.policy import InvalidPolicy
from models.domain.principal import Principal, Role
from models.rules.policy import default_text
from models.services import assistants, audit_trail, halt, policies, principals, seed, tenants
from models.services.halt import HaltMode, HaltScope
from models.services.halts import active_halt, epochs
from models.services.ids import new_id
from models.storage.db import Database
from tests.fixtures.companies import ISSUER, SEED, Company
from tests.fixtures.work import Work


async def seen(db: Database, company: Company, subject: str, *roles: Role) -> Principal:
    async with db.tenant_session(company.id) as session:
        return await principals.seen(
            session,
            company.row,
            issuer=ISSUER,
            subject=subject,
            username=subject,
            display_name="",
            email=None,
            roles=roles,
        )


async def count(db: Database, company: Company, kind: str) -> int:
    async with db.session_for(company.auditor) as session:
        found, _ = await audit_trail.list_page(session, company.auditor, audit_trail.Filter(kind=kind), limit=200)
    return len(found)


async def test_twenty_first_calls_make_one_user(db: Database, acme: Company) -> None:
    made = await asyncio.gather(*(seen(db, acme, "newcomer", Role.REQUESTER) for _ in range(20)))
    assert len({one.id for one in made}) == 1
    assert await count(db, acme, "principal.first_seen") == 1


async def test_roles_follow_the_token_and_a_change_is_audited(db: Database, acme: Company) -> None:
    first = await seen(db, acme, "newcomer", Role.REQUESTER)
    second = await seen(db, acme, "newcomer", Role.APPROVER)
    assert (first.id, second.roles) == (second.id, frozenset({Role.APPROVER}))
    assert await count(db, acme, "principal.roles_changed") == 1


async def test_the_same_subject_is_another_person_in_another_company(
    db: Database, acme: Company, globex: Company
) -> None:
    assert (await seen(db, acme, "anna")).id != (await seen(db, globex, "anna")).id
    async with db.session_for(globex.admin) as session:
        with pytest.raises(NotFound):
            await principals.read(session, globex.admin, acme.requester.id)


async def test_tenants_are_seen_by_their_own_and_by_the_holding(
    db: Database, holding: Company, acme: Company, globex: Company
) -> None:
    async with db.session_for(holding.auditor) as session:
        assert [row.slug for row in await tenants.list_visible(session, holding.auditor)] == [
            "holding",
            "acme",
            "globex",
        ]
    async with db.session_for(acme.auditor) as session:
        assert [row.slug for row in await tenants.list_visible(session, acme.auditor)] == ["acme"]
        with pytest.raises(NotFound):
            await tenants.read(session, acme.auditor, globex.id)
    assert (await tenants.find(db, "acme")) is not None
    assert await tenants.find(db, "nobody") is None


async def test_only_the_holding_acts_in_a_company(
    db: Database, holding: Company, acme: Company, globex: Company
) -> None:
    async with tenants.acting_in(db, holding.admin, acme.id) as session:
        assert session.info["tenant_id"] == acme.id
    for who, where in ((acme.admin, globex.id), (acme.admin, holding.id), (holding.admin, new_id())):
        with pytest.raises(NotFound):
            async with tenants.acting_in(db, who, where):
                pass


async def test_a_policy_version_is_checked_numbered_and_pinned(db: Database, acme: Company, work: Work) -> None:
    before = await work.create(acme.requester)
    async with db.session_for(acme.admin) as session:
        with pytest.raises(InvalidPolicy) as refused:
            await policies.write_version(session, acme.admin, default_text().replace("L1: 10", "L1: 99"))
        assert refused.value.extra["errors"][0]["line"] > 0
        same = await policies.write_version(session, acme.admin, default_text())
        assert same.version == 1
    changed = default_text().replace('version: "1"', 'version: "2"')
    async with db.session_for(acme.admin) as session:
        assert (await policies.write_version(session, acme.admin, changed, base_version=1)).version == 2
        with pytest.raises(Conflict):
            await policies.write_version(session, acme.admin, default_text(), base_version=1)
    after = await work.create(acme.requester)
    async with db.session_for(acme.auditor) as session:
        assert (await policies.read(session, acme.auditor)).id == after.policy_version_id
        assert (await policies.read(session, acme.auditor, 1)).id == before.policy_version_id
        with pytest.raises(NotFound):
            await policies.read(session, acme.auditor, 3)
        page, cursor = await policies.list_page(session, acme.auditor, limit=1)
        assert ([row.version for row in page], cursor is not None) == ([2], True)


async def test_versions_written_at_once_get_numbers_of_their_own(db: Database, acme: Company) -> None:
    async def write(number: int) -> int:
        async with db.session_for(acme.admin) as session:
            source = default_text().replace('version: "1"', f'version: "1.{number}"')
            return (await policies.write_version(session, acme.admin, source)).version

    assert sorted(await asyncio.gather(*(write(number) for number in range(6)))) == [2, 3, 4, 5, 6, 7]


async def test_an_assistant_is_made_read_and_changed_by_its_own(db: Database, acme: Company, globex: Company) -> None:
    new = assistants.NewAssistant(slug="writer", name="Writer", image="awgp/sandbox", env={"LANG": "C"})
    async with db.session_for(acme.owner) as session:
        row = await assistants.create(session, acme.owner, new)
        assert (row.owner_id, row.version) == (acme.owner.id, 1)
        with pytest.raises(Conflict):
            await assistants.create(session, acme.owner, new)
    body = assistants.AssistantBody(name="Writer 2", image="awgp/sandbox", limits={"wall_seconds": 5})
    async with db.session_for(acme.admin) as session:
        assert (await assistants.update(session, acme.admin, row.id, 1, body)).version == 2
        assert (await assistants.update(session, acme.admin, row.id, 2, body)).version == 2, "nothing changed"
        with pytest.raises(Conflict):
            await assistants.update(session, acme.admin, row.id, 1, body)
        with pytest.raises(InvalidInput):
            await assistants.update(session, acme.admin, row.id, 2, body.model_copy(update={"limits": {"pids": 1}}))
    async with db.session_for(acme.requester) as session:
        with pytest.raises(Forbidden):
            await assistants.update(session, acme.requester, row.id, 2, body)
    async with db.session_for(globex.admin) as session:
        for name in ("writer", str(row.id)):
            with pytest.raises(NotFound):
                await assistants.read(session, globex.admin, name)
        with pytest.raises(NotFound):
            await assistants.update(session, globex.admin, row.id, 2, body)


@pytest.mark.parametrize(
    "change", [{"env": {"AWGP_X": "1"}}, {"env": {"A=B": "1"}}, {"name": "a\0"}, {"limits": {"x": 1}}]
)
def test_a_bad_assistant_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        assistants.NewAssistant.model_validate({"slug": "a", "name": "A", "image": "i", **change})


async def test_a_halt_raises_its_epoch_and_is_lifted_by_those_whose_it_is(
    db: Database, holding: Company, acme: Company, globex: Company
) -> None:
    async with db.session_for(acme.admin) as session:
        state = await halt.set_halt(session, acme.admin, scope=HaltScope.TENANT, reason="smoke")
        assert (state.epoch, state.active, state.key) == (1, True, str(acme.id))
        for scope in (HaltScope.EVERYTHING,):
            with pytest.raises(Forbidden):
                await halt.set_halt(session, acme.admin, scope=scope)
        with pytest.raises(NotFound):
            await halt.set_halt(session, acme.admin, scope=HaltScope.TENANT, tenant_id=globex.id)
    async with db.session_for(acme.requester) as session:
        found = await active_halt(session, acme.id, acme.assistant_id)
        assert found is not None
        assert found.reason == "smoke"
        assert (await epochs(session, acme.id, acme.assistant_id)).tenant == 1
        with pytest.raises(Forbidden):
            await halt.lift(session, acme.requester, scope=HaltScope.TENANT)
    async with db.session_for(acme.admin) as session:
        assert not (await halt.lift(session, acme.admin, scope=HaltScope.TENANT)).active
        assert (await epochs(session, acme.id, acme.assistant_id)).tenant == 1, "an old warrant stays void"
    async with db.session_for(globex.requester) as session:
        assert await halt.list_halts(session, globex.auditor) == []
    assert await count(db, acme, "halt.set") == 1


async def test_what_the_holding_halted_the_holding_lifts(db: Database, holding: Company, acme: Company) -> None:
    async with db.session_for(holding.admin) as session:
        await halt.set_halt(session, holding.admin, scope=HaltScope.TENANT, tenant_id=acme.id, mode=HaltMode.HOLD)
        await halt.set_halt(session, holding.admin, scope=HaltScope.EVERYTHING)
    async with db.session_for(acme.admin) as session:
        with pytest.raises(Forbidden, match="the holding halted this"):
            await halt.lift(session, acme.admin, scope=HaltScope.TENANT)
        assert {state.scope for state in await halt.list_halts(session, acme.auditor)} == {"everything", "tenant"}
    async with db.session_for(holding.admin) as session:
        await halt.lift(session, holding.admin, scope=HaltScope.TENANT, tenant_id=acme.id)
        await halt.lift(session, holding.admin, scope=HaltScope.EVERYTHING)


async def test_an_assistants_owner_halts_it_and_its_live_runs_are_told(db: Database, acme: Company, work: Work) -> None:
    items = [await work.create(acme.requester) for _ in range(2)]
    async with db.tenant_session(acme.id) as session:
        for item, status in zip(items, ("running", "queued"), strict=True):
            await (await session.connection()).execute(
                text("insert into runs (tenant_id, id, work_item_id, status) values (:t, :id, :item, :status)"),
                {"t": acme.id, "id": new_id(), "item": item.id, "status": status},
            )
    async with db.session_for(acme.owner) as session:
        await halt.set_halt(session, acme.owner, scope=HaltScope.ASSISTANT, assistant_id=acme.assistant_id)
        rows = await (await session.connection()).execute(text("select status, kill_reason from runs order by status"))
        assert [tuple(row) for row in rows] == [("queued", None), ("running", "halted")]
        kinds = (await (await session.connection()).execute(text("select kind from outbox"))).scalars().all()
        assert {"halt_changed", "kill_run"} <= set(kinds)


async def test_seeding_again_changes_nothing(db: Database, owner_db: Database, acme: Company) -> None:
    body = assistants.AssistantBody(name="Renamed", image="awgp/other")
    async with db.session_for(acme.admin) as session:
        await assistants.update(session, acme.admin, acme.assistant_id, 1, body)
    before = await count(db, acme, "assistant.")
    planted = await seed.plant(owner_db, seed.Seed.model_validate(SEED), ISSUER)
    assert planted["acme"] == acme.id
    async with db.session_for(acme.admin) as session:
        assert (await assistants.read(session, acme.admin, "reconciler")).name == "Renamed"
        report = await audit_trail.verify(session, acme.admin)
    assert report.whole
    assert await count(db, acme, "assistant.") == before


async def test_the_file_that_ships_can_be_planted(owner_db: Database, db: Database) -> None:
    shipped = seed.load(Path("deploy/seed.yaml"))
    planted = await seed.plant(owner_db, shipped, "https://issuer.example.com/dev")
    assert set(planted) == {tenant.slug for tenant in shipped.tenants}
    found = await tenants.find(db, "example-holding")
    assert found is not None
