"""Reservations on real PostgreSQL, against the rules' reference and under concurrency."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlmodel import select

from models.domain.budget import BudgetScope, BudgetUse, BudgetWindow
from models.domain.errors import Forbidden, InvalidInput
from models.domain.money import NanoUsd
from models.domain.principal import Role
from models.rules import budget as rules
from models.services import budgets, money, work_items
from models.storage.db import Database
from models.tables.money import BudgetWindowRow, ChargeRow, EverythingWindowRow, ReservationRow
from tests.fixtures.companies import Company
from tests.fixtures.work import Work, control

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
DAY = timedelta(days=1)


async def set_limit(
    db: Database, company: Company, limit: int, window: BudgetWindow = BudgetWindow.DAY, *, assistant: bool = True
) -> None:
    async with db.session_for(company.admin) as session:
        await budgets.set_budget(
            session,
            company.admin,
            scope=BudgetScope.ASSISTANT if assistant else BudgetScope.TENANT,
            window=window,
            limit_nano=limit,
            assistant_id=company.assistant_id if assistant else None,
        )


async def reserve(db: Database, company: Company, item: UUID, now: datetime = NOON) -> money.ReserveResult:
    async with db.tenant_session(company.id) as session:
        return await money.reserve(session, control(company.id), item, now)


async def use(db: Database, company: Company, key: str) -> BudgetWindowRow:
    async with db.tenant_session(company.id) as session:
        found = await session.exec(select(BudgetWindowRow).where(BudgetWindowRow.window_key == key))
        return found.one()


async def everything(db: Database, company: Company, key: str) -> EverythingWindowRow:
    async with db.tenant_session(company.id) as session:
        found = await session.exec(select(EverythingWindowRow).where(EverythingWindowRow.window_key == key))
        return found.one()


async def test_reserves_on_every_budget_once(db: Database, acme: Company, work: Work) -> None:
    item = await work.assessed(acme, "L1")
    assert (await reserve(db, acme, item.id)).held
    assert (await reserve(db, acme, item.id)).held
    for key in ("2026-11-24", "2026-11"):
        row = await use(db, acme, key)
        assert (row.reserved_nano, row.waiting_nano, row.spent_nano) == (item.worst_case_nano, 0, 0)
    assert (await everything(db, acme, "2026-11")).reserved_nano == item.worst_case_nano


async def test_settles_to_the_nano_dollar_and_only_once(db: Database, acme: Company, work: Work) -> None:
    item = await work.assessed(acme, "L1")
    await reserve(db, acme, item.id)
    principal = control(acme.id)
    async with db.tenant_session(acme.id) as session:
        assert await money.claim(session, principal, item.id, NOON)
        assert await money.settle(session, principal, item.id, 123_457) == 123_457
    async with db.tenant_session(acme.id) as session:
        assert await money.settle(session, principal, item.id, 999) == 123_457
        assert len((await session.exec(select(ChargeRow))).all()) == 1
    row = await use(db, acme, "2026-11-24")
    assert (row.reserved_nano, row.spent_nano) == (0, 123_457)
    assert (await everything(db, acme, "2026-11")).spent_nano == 123_457


async def test_caps_a_charge_at_the_hold(db: Database, acme: Company, work: Work) -> None:
    item = await work.assessed(acme, "L1")
    await reserve(db, acme, item.id)
    async with db.tenant_session(acme.id) as session:
        charged = await money.settle(session, control(acme.id), item.id, item.worst_case_nano * 3)
    assert charged == item.worst_case_nano
    async with db.session_for(acme.auditor) as session:
        events = await work_items.timeline(session, acme.auditor, item.id)
    settled = next(event for event in events if event.kind == "budget.settled")
    assert settled.data["capped_from_nano"] == str(item.worst_case_nano * 3)


async def test_a_short_budget_is_named_and_nothing_is_held(db: Database, acme: Company, work: Work) -> None:
    item = await work.assessed(acme, "L1")
    await set_limit(db, acme, item.worst_case_nano - 1)
    found = await reserve(db, acme, item.id)
    assert not found.held
    assert "this assistant may spend" in found.words
    assert found.retry_at == datetime(2026, 11, 25, tzinfo=UTC)
    async with db.tenant_session(acme.id) as session:
        assert (await work_items.read(session, acme.requester, item.id)).status == "awaiting_budget"
        total = await (await session.connection()).execute(
            text("select coalesce(sum(reserved_nano), 0) from budget_windows")
        )
        assert total.scalar_one() == 0
        assert (await session.exec(select(ReservationRow))).all() == []
    again = await reserve(db, acme, item.id)
    assert not again.held
    assert again.deadline is not None
    await set_limit(db, acme, item.worst_case_nano)
    assert (await reserve(db, acme, item.id)).held


async def test_everythings_budget_is_set_by_an_admin_of_the_holding_alone(
    db: Database, acme: Company, holding: Company
) -> None:
    tenant_admin = holding.approver.model_copy(update={"roles": frozenset({Role.TENANT_ADMIN})})
    pretender = acme.admin.model_copy(update={"roles": frozenset({Role.TENANT_ADMIN, Role.HOLDING_ADMIN})})
    for who in (holding.approver, tenant_admin, acme.admin, pretender):
        with pytest.raises(Forbidden, match="an admin of the holding"):
            async with db.session_for(who) as session:
                await budgets.set_budget(
                    session, who, scope=BudgetScope.EVERYTHING, window=BudgetWindow.MONTH, limit_nano=1
                )


async def test_everything_is_a_budget_too(db: Database, acme: Company, holding: Company, work: Work) -> None:
    item = await work.assessed(acme, "L1")
    async with db.session_for(holding.admin) as session:
        await budgets.set_budget(
            session, holding.admin, scope=BudgetScope.EVERYTHING, window=BudgetWindow.MONTH, limit_nano=1
        )
    found = await reserve(db, acme, item.id)
    assert not found.held
    assert "the whole group" in found.words
    with pytest.raises(Forbidden):
        async with db.session_for(acme.admin) as session:
            await budgets.set_budget(
                session, acme.admin, scope=BudgetScope.EVERYTHING, window=BudgetWindow.MONTH, limit_nano=10**12
            )
    with pytest.raises(InvalidInput):
        async with db.session_for(acme.admin) as session:
            await budgets.set_budget(
                session, acme.admin, scope=BudgetScope.ASSISTANT, window=BudgetWindow.DAY, limit_nano=1
            )


async def test_waiting_holds_take_at_most_their_share(db: Database, acme: Company, work: Work) -> None:
    first, second = await work.assessed(acme, "L3"), await work.assessed(acme, "L3")
    await set_limit(db, acme, first.worst_case_nano * 3)
    assert (await reserve(db, acme, first.id)).held
    short = await reserve(db, acme, second.id)
    assert not short.held
    assert "wait for approvals" in short.words
    row = await use(db, acme, "2026-11-24")
    assert row.waiting_nano == row.reserved_nano == first.worst_case_nano
    firm = await work.assessed(acme, "L1")
    assert (await reserve(db, acme, firm.id)).held


async def test_a_hold_belongs_to_the_window_of_its_claim(db: Database, acme: Company, work: Work) -> None:
    item = await work.assessed(acme, "L3")
    await reserve(db, acme, item.id)
    async with db.tenant_session(acme.id) as session:
        assert await money.claim(session, control(acme.id), item.id, NOON + DAY)
    yesterday, today = await use(db, acme, "2026-11-24"), await use(db, acme, "2026-11-25")
    assert (yesterday.reserved_nano, yesterday.waiting_nano) == (0, 0)
    assert (today.reserved_nano, today.waiting_nano) == (item.worst_case_nano, 0)
    month = await use(db, acme, "2026-11")
    assert (month.reserved_nano, month.waiting_nano) == (item.worst_case_nano, 0)


async def test_a_claim_in_a_full_window_frees_the_hold(db: Database, acme: Company, work: Work) -> None:
    item, other = await work.assessed(acme, "L1"), await work.assessed(acme, "L1")
    await set_limit(db, acme, item.worst_case_nano)
    await reserve(db, acme, item.id)
    assert (await reserve(db, acme, other.id, NOON + DAY)).held
    async with db.tenant_session(acme.id) as session:
        assert not await money.claim(session, control(acme.id), item.id, NOON + DAY)
    assert (await use(db, acme, "2026-11-24")).reserved_nano == 0
    assert (await use(db, acme, "2026-11-25")).reserved_nano == other.worst_case_nano
    assert (await everything(db, acme, "2026-11")).reserved_nano == other.worst_case_nano


@pytest.mark.parametrize("seed", range(6))
async def test_agrees_with_the_reference_model(db: Database, acme: Company, work: Work, seed: int) -> None:
    """Random steps over one day's budget of the assistant, each compared with the pure rules."""
    choose = random.Random(seed)
    worst = (await work.assessed(acme, "L1")).worst_case_nano
    limit = worst * 5
    await set_limit(db, acme, limit)
    model = BudgetUse(limit=NanoUsd(limit))
    share = 500_000
    held: dict[UUID, bool] = {}
    for _ in range(25):
        step = choose.choice(["hold", "hold", "claim", "release", "settle"])
        if step == "hold":
            level = choose.choice(["L1", "L3"])
            item = await work.assessed(acme, level)
            expected = rules.hold([model], NanoUsd(item.worst_case_nano), waiting=level == "L3", share_ppm=share)
            found = await reserve(db, acme, item.id)
            assert found.held is not isinstance(expected, rules.Shortfall)
            if not isinstance(expected, rules.Shortfall):
                model, held[item.id] = expected[0], level == "L3"
        elif held:
            chosen = choose.choice(list(held))
            amount, waiting = NanoUsd(worst), held[chosen]
            async with db.tenant_session(acme.id) as session:
                principal = control(acme.id)
                if step == "release":
                    await money.release(session, principal, chosen)
                    model = rules.release(model, amount, waiting=waiting)
                else:
                    assert await money.claim(session, principal, chosen, NOON)
                    model = rules.confirm(model, amount) if waiting else model
                    held[chosen] = False
                if step == "settle":
                    spent = NanoUsd(choose.randrange(worst + 1))
                    await money.settle(session, principal, chosen, spent)
                    model = rules.settle(model, amount, spent)
            if step != "claim":
                del held[chosen]
        if held or model.spent:
            row = await use(db, acme, "2026-11-24")
            figures = (row.spent_nano, row.reserved_nano, row.waiting_nano)
            assert figures == (model.spent, model.reserved, model.waiting)


async def test_many_at_once_never_pass_a_limit(db: Database, acme: Company, globex: Company, work: Work) -> None:
    """Two companies under one budget of everything; a watcher reads every instant that it can see."""
    items = [(company, await work.assessed(company, "L1")) for company in (acme, globex) for _ in range(12)]
    worst = items[0][1].worst_case_nano
    for company in (acme, globex):
        await set_limit(db, company, worst * 7)
    admitted: list[UUID] = []
    over: list[tuple[int, ...]] = []
    done = asyncio.Event()

    async def one(company: Company, item: UUID) -> None:
        if not (await reserve(db, company, item)).held:
            return
        admitted.append(item)
        async with db.tenant_session(company.id) as session:
            await money.claim(session, control(company.id), item, NOON)
        async with db.tenant_session(company.id) as session:
            await money.settle(session, control(company.id), item, worst // 2)

    async def watch() -> None:
        while not done.is_set():
            for company in (acme, globex):
                async with db.tenant_session(company.id) as session:
                    rows = await (await session.connection()).execute(
                        text(
                            "select w.spent_nano + w.reserved_nano, b.limit_nano from budget_windows w join budgets b"
                            " on b.tenant_id = w.tenant_id and b.id = w.budget_id"
                        )
                    )
                    over.extend(tuple(row) for row in rows if row[0] > row[1])

    watcher = asyncio.create_task(watch())
    await asyncio.gather(*(one(company, item.id) for company, item in items))
    done.set()
    await watcher
    assert over == []
    for company in (acme, globex):
        row = await use(db, company, "2026-11-24")
        mine = sum(item.id in admitted for owner, item in items if owner.id == company.id)
        assert mine >= 7
        assert (row.reserved_nano, row.spent_nano) == (0, mine * (worst // 2))
    assert (await everything(db, acme, "2026-11")).spent_nano == len(admitted) * (worst // 2)


async def test_budgets_are_listed_with_their_use(db: Database, acme: Company, work: Work) -> None:
    item = await work.assessed(acme, "L1")
    await reserve(db, acme, item.id)
    async with db.session_for(acme.requester) as session:
        found = await budgets.list_budgets(session, acme.requester, NOON)
    assert {view.scope for view in found} == set(BudgetScope)
    assert all(view.reserved_nano == item.worst_case_nano for view in found)
    assert all(view.left_nano == view.limit_nano - item.worst_case_nano for view in found)
