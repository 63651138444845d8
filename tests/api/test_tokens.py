"""Who gets in, and who does not; on the same code that verifies a real issuer's tokens."""

from __future__ import annotations

import time
from typing import Any

import pytest
from joserfc.jwk import OKPKey, RSAKey

from api.tokens import SigningKeys, TokenVerifier
from models.domain.errors import AwgpError, DependencyAway, Forbidden, Unauthenticated
from tests.api.conftest import Client
from tests.api.issuer import AUDIENCE, TestIssuer, confused, unsigned
from tests.fixtures.companies import ISSUER, Company


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
async def test_a_token_of_each_algorithm_gets_in(api: Client, acme: Company, alg: str) -> None:
    me = (await api.get("/v1/me", api.issuer.token(acme.requester, alg))).ok()
    assert (me["username"], me["tenant"], me["roles"], me["acr"]) == ("acme-requester", "acme", ["requester"], "2")
    assert me["id"] == str(acme.requester.id), "the seeded person, not a second one"


def _bad_tokens(issuer: TestIssuer) -> dict[str, str]:
    now = int(time.time())
    stranger = OKPKey.generate_key("Ed25519", {"kid": "ed"})
    unknown = OKPKey.generate_key("Ed25519", {"kid": "nobody's"})
    rsa = issuer.keys["RS256"]
    assert isinstance(rsa, RSAKey)
    good = issuer.token()
    head, _, signature = good.split(".")
    other_claims = unsigned(issuer.claims(realm_access={"roles": ["tenant_admin"]})).split(".")[1]
    return {
        "expired": issuer.token(exp=now - 31),
        "not_yet": issuer.token(nbf=now + 60),
        "no_exp": issuer.token(exp=None),
        "exp_is_text": issuer.token(exp="tomorrow"),
        "other_audience": issuer.token(aud="somebody-else"),
        "no_audience": issuer.token(aud=None),
        "other_issuer": issuer.token(iss="https://evil.example.com"),
        "no_subject": issuer.token(sub=None),
        "alg_none": unsigned(issuer.claims()),
        "alg_None": unsigned(issuer.claims(), "None"),
        "hmac_with_public_key": confused(issuer.claims(), rsa.as_pem(private=False)),
        "foreign_key_of_a_known_kid": issuer.sign(issuer.claims(), stranger, "EdDSA"),
        "foreign_key": issuer.sign(issuer.claims(), unknown, "EdDSA"),
        "changed_claims": f"{head}.{other_claims}.{signature}",
        "no_signature": f"{head}.{good.split('.')[1]}.",
        "not_a_jwt": "hello",
        "not_base64": "a.b.c",
        "too_long": "a" * 20_000,
    }


async def test_no_bad_token_gets_in(api: Client, acme: Company, row_counts: Any) -> None:
    before = row_counts()
    for name, token in _bad_tokens(api.issuer).items():
        if name == "too_long":
            continue  # longer than a header may be: the server itself refuses
        answer = await api.get("/v1/me", token)
        assert answer.problem(401)["type"].endswith("/unauthenticated"), name
        assert answer.headers["WWW-Authenticate"].startswith("Bearer"), name
    (await api.get("/v1/me")).problem(401)
    (await api.get("/v1/me", headers={"Authorization": "Basic eDp5"})).problem(401)
    assert row_counts() == before


@pytest.mark.parametrize("name", _bad_tokens(TestIssuer()))
async def test_the_verifier_refuses(issuer: TestIssuer, name: str) -> None:
    verifier = TokenVerifier(SigningKeys(issuer.fetch), issuer=ISSUER, audience=AUDIENCE)
    with pytest.raises(Unauthenticated):
        await verifier.verify(_bad_tokens(issuer)[name])


async def test_thirty_seconds_of_leeway(issuer: TestIssuer) -> None:
    now = int(time.time())
    verifier = TokenVerifier(SigningKeys(issuer.fetch), issuer=ISSUER, audience=AUDIENCE, now=lambda: now)
    await verifier.verify(issuer.token(exp=now - 29, nbf=now + 29))


@pytest.mark.parametrize(
    "groups",
    [
        None,
        [],
        ["/tenants"],
        ["/tenants/acme", "/tenants/globex"],
        ["/other/acme"],
        ["/tenants/acme/team"],
        "acme",
        [7],
    ],
)
async def test_a_token_names_exactly_one_tenant(issuer: TestIssuer, groups: Any) -> None:
    verifier = TokenVerifier(SigningKeys(issuer.fetch), issuer=ISSUER, audience=AUDIENCE)
    with pytest.raises(Forbidden):
        await verifier.verify(issuer.token(groups=groups))


async def test_an_unknown_tenant_is_refused_and_nothing_is_written(api: Client, acme: Company, row_counts: Any) -> None:
    before = row_counts()
    answer = await api.get("/v1/me", api.issuer.token(acme.requester, groups=["/tenants/nobody"]))
    assert "nobody" in answer.problem(403)["detail"]
    assert row_counts() == before


async def test_a_person_first_seen_is_made_a_user_once(api: Client, acme: Company, row_counts: Any) -> None:
    before = row_counts()["principals"]
    newcomer = api.issuer.token(sub="new-one", preferred_username="nora", name="Nora New", email="nora@example.com")
    first = (await api.get("/v1/me", newcomer)).ok()
    again = (await api.get("/v1/me", api.issuer.token(sub="new-one", preferred_username="nora", name="Nora New"))).ok()
    assert first["id"] == again["id"]
    assert first["display_name"] == "Nora New"
    assert row_counts()["principals"] == before + 1


async def test_unknown_roles_are_no_roles(api: Client, acme: Company) -> None:
    token = api.issuer.token(sub="other", realm_access={"roles": ["superuser", "offline_access", 7]})
    assert (await api.get("/v1/me", token)).ok()["roles"] == []
    (await api.get("/v1/work-items", token)).problem(403)


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_keys_are_asked_for_once_and_again_for_an_unknown_kid_but_not_for_each(issuer: TestIssuer) -> None:
    own, clock = TestIssuer(), _Clock()
    verifier = TokenVerifier(SigningKeys(own.fetch, clock=clock), issuer=ISSUER, audience=AUDIENCE)
    for _ in range(5):
        await verifier.verify(own.token())
    assert own.fetched == 1
    own.keys["EdDSA"] = OKPKey.generate_key("Ed25519", {"kid": "rotated", "use": "sig"})
    clock.now = 11
    await verifier.verify(own.token())
    assert own.fetched == 2
    for number in range(20):
        stranger = OKPKey.generate_key("Ed25519", {"kid": f"invented-{number}"})
        with pytest.raises(Unauthenticated):
            await verifier.verify(own.sign(own.claims(), stranger, "EdDSA"))
    assert own.fetched == 2, "anybody can invent a kid"


async def test_without_a_kid_every_key_of_the_type_is_tried(issuer: TestIssuer) -> None:
    verifier = TokenVerifier(SigningKeys(issuer.fetch), issuer=ISSUER, audience=AUDIENCE)
    bare = OKPKey.import_key(issuer.keys["EdDSA"].as_pem(private=True))
    assert bare.kid is None
    assert (await verifier.verify(issuer.sign(issuer.claims(), bare, "EdDSA"))).tenant_slug == "acme"


async def test_an_issuer_that_is_away_is_said_to_be_and_known_keys_stay_good() -> None:
    own, clock = TestIssuer(), _Clock()
    away = False

    async def fetch() -> Any:
        if away:
            raise OSError("refused")
        return await own.fetch()

    verifier = TokenVerifier(SigningKeys(fetch, clock=clock), issuer=ISSUER, audience=AUDIENCE)
    away = True
    with pytest.raises(DependencyAway):
        await verifier.verify(own.token())
    away, clock.now = False, 20
    await verifier.verify(own.token())
    away, clock.now = True, 10_000
    await verifier.verify(own.token())


async def test_a_program_is_a_service_and_no_human(issuer: TestIssuer) -> None:
    verifier = TokenVerifier(SigningKeys(issuer.fetch), issuer=ISSUER, audience=AUDIENCE)
    claims = await verifier.verify(issuer.token(preferred_username="service-account-n8n"))
    assert claims.is_service
    assert issubclass(Unauthenticated, AwgpError)
