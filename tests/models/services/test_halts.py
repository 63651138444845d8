"""The kill switch: whose it is, and whom it ends."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from models.domain.errors import Forbidden
from models.domain.principal import Role
from models.services import halt
from models.services.halt import HaltMode, HaltScope
from models.storage.db import Database
from tests.fixtures.companies import Company
from tests.fixtures.runs import claimed, new_runtime, row_of
from tests.fixtures.work import Work, control


async def test_a_company_neither_lifts_nor_weakens_what_the_holding_halted(
    db: Database, holding: Company, acme: Company
) -> None:
    async with db.session_for(holding.admin) as session:
        await halt.set_halt(session, holding.admin, scope=HaltScope.TENANT, tenant_id=acme.id)
    for change in (halt.set_halt, halt.lift):
        with pytest.raises(Forbidden, match="the holding"):
            async with db.session_for(acme.admin) as session:
                await change(session, acme.admin, scope=HaltScope.TENANT)
    # Nor past the service: the function itself says so.
    with pytest.raises(ProgrammingError, match="only the holding"):
        async with db.session_for(acme.admin) as session:
            await (await session.connection()).execute(
                text("select set_halt('tenant', :acme, null, true, 'hold', '', :who)"),
                {"acme": acme.id, "who": f"{holding.id}/boss"},
            )
    async with db.session_for(holding.admin) as session:
        await halt.lift(session, holding.admin, scope=HaltScope.TENANT, tenant_id=acme.id)
    async with db.session_for(acme.admin) as session:
        await halt.set_halt(session, acme.admin, scope=HaltScope.TENANT, mode=HaltMode.HOLD)
        await halt.lift(session, acme.admin, scope=HaltScope.TENANT)


async def test_an_owner_neither_lifts_nor_weakens_what_their_admin_halted(
    db: Database, holding: Company, acme: Company
) -> None:
    for company in (acme, holding):
        which: dict[str, Any] = {"scope": HaltScope.ASSISTANT, "assistant_id": company.assistant_id}
        async with db.session_for(company.admin) as session:
            state = await halt.set_halt(session, company.admin, **which)
        assert state.changed_by == company.admin.username
        forged = company.owner.model_copy(update={"roles": company.owner.roles | {Role.HOLDING_ADMIN}})
        liars = [company.owner] if company is holding else [company.owner, forged]
        for owner in liars:
            with pytest.raises(Forbidden, match="an admin"):
                async with db.session_for(owner) as session:
                    await halt.lift(session, owner, **which)
            with pytest.raises(Forbidden, match="an admin"):
                async with db.session_for(owner) as session:
                    await halt.set_halt(session, owner, mode=HaltMode.HOLD, **which)
        async with db.session_for(company.admin) as session:
            await halt.lift(session, company.admin, **which)


async def test_an_owner_lifts_their_own_halt_and_so_does_their_admin(db: Database, acme: Company) -> None:
    which: dict[str, Any] = {"scope": HaltScope.ASSISTANT, "assistant_id": acme.assistant_id}
    for lifter in (acme.owner, acme.admin):
        async with db.session_for(acme.owner) as session:
            await halt.set_halt(session, acme.owner, **which)
        async with db.session_for(lifter) as session:
            assert not (await halt.lift(session, lifter, **which)).active


async def halted(db: Database, holding: Company, acme: Company) -> int:
    """The holding halts a company and lifts it; answers the epoch that the relay is told."""
    who: dict[str, Any] = {"scope": HaltScope.TENANT, "tenant_id": acme.id}
    async with db.session_for(holding.admin) as session:
        state = await halt.set_halt(session, holding.admin, **who)
        await halt.lift(session, holding.admin, **who)
    return state.epoch


async def kill(db: Database, acme: Company, epoch: int) -> int:
    async with db.tenant_session(acme.id) as session:
        return await halt.kill_runs(session, control(acme.id), HaltScope.TENANT, epoch)


async def test_a_halt_that_is_handled_late_spares_what_was_started_after_it(
    db: Database, holding: Company, acme: Company, work: Work
) -> None:
    runtime = await new_runtime(db, acme)
    _, before = await claimed(db, work, acme, runtime)
    epoch = await halted(db, holding, acme)
    _, after = await claimed(db, work, acme, runtime)
    assert await kill(db, acme, epoch) == 1
    assert (await row_of(db, acme, before.run_id)).kill_reason == "halted"
    assert (await row_of(db, acme, after.run_id)).kill_reason is None
