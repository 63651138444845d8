"""A real Keycloak's tokens get in, on the code and the realm file that an installation uses.

Needs Java and Keycloak's distribution: `AWGP_TEST_KEYCLOAK=<unpacked folder> pytest -m keycloak`.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from keycloak import KeycloakAdmin, KeycloakOpenID

from api.tokens import SigningKeys, TokenVerifier, fetch_keys_from
from models.domain.errors import Unauthenticated
from models.domain.principal import Role
from tests.fixtures.postgres import free_port

DISTRIBUTION = os.environ.get("AWGP_TEST_KEYCLOAK", "")
REALM_FILE = Path(__file__).parents[2] / "deploy" / "keycloak" / "awgp-realm.json"
READY_SECONDS = 240

pytestmark = [
    pytest.mark.keycloak,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not DISTRIBUTION, reason="AWGP_TEST_KEYCLOAK names no unpacked Keycloak"),
    # python-keycloak leaves its connections to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Server:
    """A Keycloak on free ports, with the realm of the repository and one more client that takes passwords."""

    def __init__(self, home: Path) -> None:
        self.port, self.management, self.password = free_port(), free_port(), secrets.token_urlsafe(16)
        self.url = f"http://127.0.0.1:{self.port}"
        realm = json.loads(REALM_FILE.read_text())
        mappers = realm["clients"][0]["protocolMappers"]
        realm["clients"].append(
            {"clientId": "test", "publicClient": True, "directAccessGrantsEnabled": True, "protocolMappers": mappers}
        )
        (home / "data" / "import").mkdir(parents=True, exist_ok=True)
        (home / "data" / "import" / "awgp-realm.json").write_text(json.dumps(realm))
        environment = {
            **os.environ,
            "KC_BOOTSTRAP_ADMIN_USERNAME": "admin",
            "KC_BOOTSTRAP_ADMIN_PASSWORD": self.password,
            "JAVA_OPTS_APPEND": "-Xmx768m",
        }
        command = [
            str(home / "bin" / "kc.sh"), "start-dev", "--import-realm", "--http-host=127.0.0.1",
            f"--http-port={self.port}", f"--http-management-port={self.management}", "--health-enabled=true",
        ]  # fmt: skip
        with (home / "test.log").open("w") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def wait(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "Keycloak has ended; see test.log in its folder"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.management}/health/ready", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        raise AssertionError(f"Keycloak was not ready within {READY_SECONDS} s")

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)


@pytest.fixture(scope="module")
def keycloak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("keycloak") / "home"
    shutil.copytree(DISTRIBUTION, home)
    server = Server(home)
    try:
        server.wait()
        yield server
    finally:
        server.stop()


def _person(keycloak: Server, username: str, group: str, roles: list[str]) -> str:
    """A person of the realm; the password."""
    admin = KeycloakAdmin(
        server_url=keycloak.url,
        username="admin",
        password=keycloak.password,
        realm_name="awgp",
        user_realm_name="master",
    )
    password = secrets.token_urlsafe(16)
    user = admin.create_user(
        {
            "username": username,
            "email": f"{username}@example.com",
            "firstName": username.title(),
            "lastName": "Example",
            "enabled": True,
            "emailVerified": True,
            "credentials": [{"type": "password", "value": password, "temporary": False}],
        }
    )
    found: Any = admin.get_group_by_path(f"/tenants/{group}")
    admin.group_user_add(user, found["id"])
    wanted: Any = [admin.get_realm_role(role) for role in roles]
    admin.assign_realm_roles(user, wanted)
    return password


def _token(keycloak: Server, username: str, password: str) -> str:
    client = KeycloakOpenID(server_url=keycloak.url, realm_name="awgp", client_id="test")
    answer: Any = client.token(username, password)
    return str(answer["access_token"])


def _verifier(keycloak: Server, audience: str = "awgp") -> TokenVerifier:
    issuer = f"{keycloak.url}/realms/awgp"
    keys = SigningKeys(fetch_keys_from(f"{issuer}/protocol/openid-connect/certs"))
    return TokenVerifier(keys, issuer=issuer, audience=audience)


async def test_a_persons_token_says_company_roles_and_how_they_signed_in(keycloak: Server) -> None:
    password = _person(keycloak, "karla", "acme", ["requester", "approver"])
    claims = await _verifier(keycloak).verify(_token(keycloak, "karla", password))
    assert (claims.username, claims.tenant_slug, claims.email) == ("karla", "acme", "karla@example.com")
    assert claims.roles == {Role.REQUESTER, Role.APPROVER}
    assert claims.acr == "1"
    assert not claims.is_service


async def test_a_token_for_somebody_else_stays_outside(keycloak: Server) -> None:
    password = _person(keycloak, "kurt", "globex", ["requester"])
    token = _token(keycloak, "kurt", password)
    with pytest.raises(Unauthenticated):
        await _verifier(keycloak, "another").verify(token)
    head, body, signature = token.split(".")
    with pytest.raises(Unauthenticated):
        await _verifier(keycloak).verify(f"{head}.{body}.{signature[::-1]}")
