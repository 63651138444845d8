"""Which contents a tenant has brought: the blob store is shared, and knowing a digest must not open another's file."""

from __future__ import annotations

from collections.abc import Mapping, Set
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from models.domain.errors import InvalidInput
from models.domain.principal import Principal
from models.services.operations import once


class Uploaded(BaseModel):
    """Content that is in the blob store."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    size: int


def _op_id(sha256: str) -> str:
    return f"upload/{sha256}"


async def record_upload(session: AsyncSession, principal: Principal, uploaded: Uploaded) -> Uploaded:
    """Remember that the principal's tenant brought this content; repeatable."""

    async def same() -> Uploaded:
        return uploaded

    return await once(session, principal.tenant_id, _op_id(uploaded.sha256), Uploaded, same)


async def sizes(session: AsyncSession, tenant_id: UUID, digests: Set[str]) -> dict[str, int]:
    """Size of each of these contents that the tenant (its people, or its runtimes) has brought."""
    if not digests:
        return {}
    connection = await session.connection()
    rows = await connection.execute(
        text("select answer from operations where tenant_id = :tenant and op_id = any(:ops)"),
        {"tenant": tenant_id, "ops": [_op_id(digest) for digest in digests]},
    )
    return {file.sha256: file.size for file in map(Uploaded.model_validate, rows.scalars())}


async def require_uploads(session: AsyncSession, tenant_id: UUID, wanted: Mapping[str, Uploaded]) -> None:
    """Refuse contents that the tenant did not bring, or brought in another size.

    `wanted` names each by where it stands in the request, such as `inputs[0]`.

    Raises:
        InvalidInput: `errors` says which.
    """
    known = await sizes(session, tenant_id, {file.sha256 for file in wanted.values()})
    errors = [
        {
            "where": place,
            "what": f"has {known[file.sha256]} bytes, not {file.size}"
            if file.sha256 in known
            else f"no file {file.sha256} was uploaded; send it to POST /v1/files first",
        }
        for place, file in wanted.items()
        if known.get(file.sha256) != file.size
    ]
    if errors:
        raise InvalidInput(f"{errors[0]['where']}: {errors[0]['what']}", errors=errors)
