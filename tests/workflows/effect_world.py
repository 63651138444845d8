"""The activities of effects over the in-memory rows: the other side does what a warrant lets it, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from temporalio import activity

from activities import signatures as act
from models.domain.approval import ApprovalStatus

if TYPE_CHECKING:
    from tests.workflows.world import World


def effects(world: World) -> list[Callable[..., Any]]:
    @activity.defn(name="mint_effect")
    async def mint(given: act.EffectInput) -> act.EffectMintOutput:
        world.note("mint_effect")
        known = given.action_id == world.action_id or given.action_id in world.staged
        if given.action_id in world.performed or not known:
            return act.EffectMintOutput(state=act.EffectMintState.ENDED, words="performed" if known else "no leave")
        if world.effects_halted:
            world.told("effect_held")
            return act.EffectMintOutput(state=act.EffectMintState.HALTED, words="everything is halted")
        world.warrants.add(given.action_id)
        return act.EffectMintOutput(state=act.EffectMintState.MINTED)

    @activity.defn(name="perform_effect")
    async def perform(given: act.EffectInput) -> act.EffectOutput:
        world.note("perform_effect")
        if given.action_id not in world.warrants:
            return act.EffectOutput(words="there is no live warrant")
        world.warrants.discard(given.action_id)
        if not world.settle_answers:
            world.performed.append(given.action_id)
        return act.EffectOutput(words="sent")

    @activity.defn(name="settle_effect")
    async def settle(given: act.EffectInput) -> act.SettleOutput:
        world.note("settle_effect")
        if given.action_id not in world.performed and world.settle_answers:
            return world.settle_answers.pop(0)
        done = given.action_id in world.performed
        return act.SettleOutput(state=act.SettleState.DONE if done else act.SettleState.AGAIN)

    @activity.defn(name="advance_staged")
    async def advance(given: act.WorkItemInput) -> act.StagedOutput:
        world.note("advance_staged")
        left = world.to_commit
        if not left:
            return act.StagedOutput(state=act.StagedState.DONE)
        if world.staged_approval is ApprovalStatus.PENDING:
            world.told("staged_asked")
            return act.StagedOutput(
                state=act.StagedState.ASKED, approval_id=world.approval_id, expires_at=world.expires_at
            )
        return act.StagedOutput(state=act.StagedState.PERFORM, action_id=left[0], words="pay → account 42")

    return [mint, perform, settle, advance]
