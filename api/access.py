"""Who may call which route: one table, and nothing beside it.

`check` fails the start (and the build) when a route is missing here or a row names no route. The rules of a thing
itself (its tenant, who may decide it) are checked by the services, on what the database holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum, auto
from typing import Final

from fastapi.routing import APIRoute

from models.domain.errors import Forbidden
from models.domain.principal import Principal, Role


class Open(Enum):
    """Rules that name no role."""

    PUBLIC = auto()
    """Nobody needs to say who they are."""
    KNOWN = auto()
    """Anybody with a valid token of a known tenant."""
    AGENT = auto()
    """An agent, by its run's warrant or its assistant's key; nobody with a person's token."""


Rule = Open | frozenset[Role]

_ASKS = frozenset({Role.REQUESTER, Role.AUTOMATION, Role.ASSISTANT_OWNER, Role.TENANT_ADMIN, Role.HOLDING_ADMIN})
_DECIDES = frozenset({Role.APPROVER, Role.HOLDING_APPROVER})
_READS = _ASKS | _DECIDES | {Role.AUDITOR}
_OWNS_ASSISTANTS = frozenset({Role.ASSISTANT_OWNER, Role.TENANT_ADMIN, Role.HOLDING_ADMIN})
_ADMINS = frozenset({Role.TENANT_ADMIN, Role.HOLDING_ADMIN})
_AUDITS = _ADMINS | {Role.AUDITOR}

TABLE: Final[Mapping[tuple[str, str], Rule]] = {
    ("GET", "/healthz"): Open.PUBLIC,
    ("GET", "/readyz"): Open.PUBLIC,
    ("GET", "/v1/me"): Open.KNOWN,
    ("GET", "/v1/tenants"): _READS,
    ("GET", "/v1/tenants/{tenant_id}"): _READS,
    ("GET", "/v1/users"): _AUDITS,
    ("GET", "/v1/users/{user_id}"): _AUDITS,
    ("POST", "/v1/assistants"): _OWNS_ASSISTANTS,
    ("GET", "/v1/assistants"): _READS,
    ("GET", "/v1/assistants/{assistant_id}"): _READS,
    ("PUT", "/v1/assistants/{assistant_id}"): _OWNS_ASSISTANTS,
    ("POST", "/v1/files"): _ASKS,
    ("POST", "/v1/work-items"): _ASKS,
    ("POST", "/v1/work-items/dry-run"): _ASKS,
    ("GET", "/v1/work-items"): _READS,
    ("GET", "/v1/work-items/{work_item_id}"): _READS,
    ("POST", "/v1/work-items/{work_item_id}/cancel"): _ASKS,
    ("GET", "/v1/work-items/{work_item_id}/timeline"): _READS,
    ("GET", "/v1/work-items/{work_item_id}/logs"): _READS,
    ("GET", "/v1/work-items/{work_item_id}/events"): _READS,
    ("GET", "/v1/work-items/{work_item_id}/costs"): _READS,
    ("GET", "/v1/work-items/{work_item_id}/files"): _READS,
    ("GET", "/v1/work-items/{work_item_id}/files/{direction}/{path:path}"): _READS,
    ("HEAD", "/v1/work-items/{work_item_id}/files/{direction}/{path:path}"): _READS,
    ("GET", "/v1/approvals"): _DECIDES,
    ("GET", "/v1/approvals/{approval_id}"): _READS,
    ("POST", "/v1/approvals/{approval_id}/decision"): _DECIDES,
    ("GET", "/v1/actions"): _READS,
    ("GET", "/v1/actions/{action_id}/details"): _READS,
    ("GET", "/v1/work-items/{work_item_id}/actions"): _READS,
    ("GET", "/v1/work-items/{work_item_id}/questions"): _READS,
    ("POST", "/v1/work-items/{work_item_id}/questions/{question_id}/answer"): _ASKS,
    ("POST", "/v1/assistants/{assistant_id}/keys"): _OWNS_ASSISTANTS,
    ("GET", "/v1/assistants/{assistant_id}/keys"): _OWNS_ASSISTANTS,
    ("DELETE", "/v1/assistants/{assistant_id}/keys/{key_id}"): _OWNS_ASSISTANTS,
    ("POST", "/v1/actions"): Open.AGENT,
    ("GET", "/v1/actions/{action_id}"): Open.AGENT,
    ("POST", "/v1/agent/actions"): Open.AGENT,
    ("GET", "/v1/agent/actions"): Open.AGENT,
    ("GET", "/v1/agent/actions/{action_id}"): Open.AGENT,
    ("POST", "/v1/agent/progress"): Open.AGENT,
    ("POST", "/v1/agent/questions"): Open.AGENT,
    ("GET", "/v1/agent/questions/{question_id}"): Open.AGENT,
    ("PUT", "/v1/agent/state"): Open.AGENT,
    ("GET", "/v1/agent/state"): Open.AGENT,
    ("GET", "/v1/agent/context"): Open.AGENT,
    ("POST", "/v1/agent/mcp"): Open.AGENT,
    ("POST", "/v1/policies/validate"): _AUDITS,
    ("POST", "/v1/policies"): _ADMINS,
    ("GET", "/v1/policies"): _READS,
    ("GET", "/v1/policies/current"): _READS,
    ("GET", "/v1/policies/{version}"): _READS,
    ("PUT", "/v1/secrets/{name}"): _ADMINS,
    ("GET", "/v1/secrets"): _ADMINS,
    ("DELETE", "/v1/secrets/{name}"): _ADMINS,
    ("POST", "/v1/connectors"): _ADMINS,
    ("GET", "/v1/connectors"): _AUDITS,
    ("GET", "/v1/connectors/{name}"): _AUDITS,
    ("PUT", "/v1/connectors/{name}"): _ADMINS,
    ("PUT", "/v1/budgets"): _ADMINS,
    ("GET", "/v1/budgets"): _READS,
    ("POST", "/v1/halts"): _OWNS_ASSISTANTS,
    ("POST", "/v1/halts/lift"): _OWNS_ASSISTANTS,
    ("GET", "/v1/halts"): _READS,
    ("GET", "/v1/audit"): _AUDITS,
    ("GET", "/v1/audit/verify"): _AUDITS,
    ("GET", "/v1/audit/export"): _AUDITS,
    ("GET", "/v1/prices"): _READS,
    ("GET", "/v1/prices/{model:path}"): _READS,
    ("GET", "/v1/runtimes"): _AUDITS,
    ("POST", "/v1/runtimes/enrolment-tokens"): _ADMINS,
}


class AccessTableError(RuntimeError):
    """Routes and table differ: no process starts like that."""


def require(principal: Principal, method: str, path: str) -> None:
    """Refuse a principal who has none of the roles that the route asks for.

    Raises:
        Forbidden: It says which role would do.
    """
    rule = TABLE[method, path]
    if rule is Open.AGENT:
        raise Forbidden("This is for agents: it takes a run's warrant or an assistant's key.")
    if isinstance(rule, Open) or rule & principal.roles:
        return
    needed = sorted(role.value for role in rule)
    raise Forbidden(f"This takes one of the roles {', '.join(needed)}.", roles_needed=needed)


def check(routes: Iterable[APIRoute], people: Iterable[APIRoute], agents: Iterable[APIRoute]) -> None:
    """Compare the table with the routes that are served.

    Args:
        routes: All of them.
        people: Those that ask which person or service calls.
        agents: Those that ask which agent calls.

    Raises:
        AccessTableError: A route is not in the table, a row has no route, or a route that is not public asks nobody (or
            asks for the wrong kind of caller).
    """
    served = _named(routes)
    asks_people, asks_agents = _named(people), _named(agents)
    faults = [f"{method} {path} is not in the table" for method, path in sorted(served - TABLE.keys())]
    faults += [f"{method} {path} is in the table, but no route" for method, path in sorted(TABLE.keys() - served)]
    faults += [
        f"{method} {path} does not ask who calls"
        for (method, path), rule in TABLE.items()
        if rule is not Open.PUBLIC and (method, path) in served - (asks_agents if rule is Open.AGENT else asks_people)
    ]
    if faults:
        raise AccessTableError("; ".join(faults))


def _named(routes: Iterable[APIRoute]) -> set[tuple[str, str]]:
    return {(method, route.path) for route in routes for method in route.methods or ()}
