"""The file connector: an artifact of the run is handed to whoever asked for the work."""

from __future__ import annotations

from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.action import FileEffect
from models.domain.connector import FileConnector
from models.domain.effect import Answer, Outcome
from models.domain.events import EventKind
from models.domain.principal import Principal
from models.repositories import work_items as item_rows
from models.services import events
from models.services.effect_warrants import Standing


async def hand_over(session: AsyncSession, principal: Principal, standing: Standing) -> Answer:
    """Hand the artifact over: it stands among the item's files that came out, and the timeline says so."""
    effect, config, item = standing.effect, standing.config, standing.item
    assert isinstance(effect, FileEffect), "the kinds were compared"
    assert isinstance(config, FileConnector), "likewise"
    if item is None:
        return _failed("an agent that runs elsewhere has no artifacts here")
    files = await item_rows.files(session, item.id, "out")
    found = next((file for file in files if file.path == effect.artifact), None)
    if found is None:
        return _failed(
            f"there is no artifact {effect.artifact} yet; artifacts are kept when the run ends (mode: staged)"
        )
    if found.size > config.most_bytes:
        return _failed(
            f"{effect.artifact} has {found.size} bytes; this connector hands over at most {config.most_bytes}"
        )
    handed = {
        "path": found.path,
        "sha256": found.sha256,
        "size": found.size,
        "url": f"/v1/work-items/{item.id}/files/out/{found.path}",
    }
    await events.add(session, item.tenant_id, item.id, EventKind.FILE, {"handed_over": True, **handed})
    return Answer(Outcome.PERFORMED, f"{found.path} is handed to the requester", {"sent": True, **handed}, handed)


def _failed(words: str) -> Answer:
    return Answer(Outcome.FAILED, words, {"sent": True, "words": words}, {})
