"""Secrets and connectors of the caller's company: how effects leave the house, and as whom."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.auth import Caller
from api.deps import Given
from api.schemas.connectors import (
    ConnectorAnswer,
    ConnectorChange,
    ConnectorList,
    NewConnector,
    SecretAnswer,
    SecretBody,
    SecretList,
)
from models.services import connectors, secrets

router = APIRouter(prefix="/v1", tags=["connectors"])
SecretPath = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_-]{0,62}$", description="Its name.")]
ConnectorPath = Annotated[str, Path(min_length=1, max_length=64, description="Its name.")]


@router.put("/secrets/{name}")
async def put_secret(name: SecretPath, body: SecretBody, principal: Caller, given: Given) -> SecretAnswer:
    """Keep a secret for the company's connectors; a known name takes the new value."""
    async with given.db.session_for(principal) as session:
        view = await secrets.put(session, principal, given.sealing(), name, body.value.get_secret_value())
    return SecretAnswer.model_validate(view)


@router.get("/secrets")
async def list_secrets(principal: Caller, given: Given) -> SecretList:
    """The names of the company's secrets; never a value."""
    async with given.db.session_for(principal) as session:
        return SecretList(
            items=[SecretAnswer.model_validate(one) for one in await secrets.list_names(session, principal)]
        )


@router.delete("/secrets/{name}", status_code=204)
async def delete_secret(name: SecretPath, principal: Caller, given: Given) -> None:
    """Forget a secret that no connector uses."""
    async with given.db.session_for(principal) as session:
        await secrets.delete(session, principal, name)


@router.post("/connectors", status_code=201)
async def create_connector(body: NewConnector, principal: Caller, given: Given, response: Response) -> ConnectorAnswer:
    """Set up a connector; assistants may use it once it is on their list."""
    async with given.db.session_for(principal) as session:
        row = await connectors.create(session, principal, body)
    response.headers["Location"] = f"/v1/connectors/{row.name}"
    return ConnectorAnswer.model_validate(row)


@router.get("/connectors")
async def list_connectors(principal: Caller, given: Given) -> ConnectorList:
    """The company's connectors."""
    async with given.db.session_for(principal) as session:
        rows = await connectors.list_all(session, principal)
    return ConnectorList(items=[ConnectorAnswer.model_validate(row) for row in rows])


@router.get("/connectors/{name}")
async def read_connector(name: ConnectorPath, principal: Caller, given: Given) -> ConnectorAnswer:
    """One connector."""
    async with given.db.session_for(principal) as session:
        return ConnectorAnswer.model_validate(await connectors.read(session, principal, name))


@router.put("/connectors/{name}")
async def update_connector(
    name: ConnectorPath, body: ConnectorChange, principal: Caller, given: Given
) -> ConnectorAnswer:
    """Replace a connector's configuration, if nobody else has since `version`; what was approved before is void."""
    async with given.db.session_for(principal) as session:
        row = await connectors.update(session, principal, name, body.version, body.config, enabled=body.enabled)
        return ConnectorAnswer.model_validate(row)
