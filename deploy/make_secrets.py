"""`make compose-secrets`: make what `docker-compose.yml` mounts as secrets, once, each file with mode 0600.

Nothing that exists is overwritten, so it can be run again after an upgrade. The certificate is self-signed for
`awgp.local` and its names; put your own into `tls_certificate` and `tls_key`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from models.services.warrant_keys import EdDsaSigner
from models.storage.vault import Vault

ROOT = Path(__file__).resolve().parent
FOLDER = ROOT / "secrets"
VOLUMES = tuple(ROOT / "volumes" / name for name in ("data", "redis", "n8n"))
NAMES = ("awgp.local", "*.awgp.local")
_PEM = serialization.Encoding.PEM
_PKCS8 = serialization.PrivateFormat.PKCS8
_PLAIN = serialization.NoEncryption()


def write(name: str, value: str) -> str:
    """Write the secret unless it exists; answers the one in force."""
    path = FOLDER / name
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(value)
    return path.read_text()


def write_database_urls() -> None:
    """One URL a role; the superuser's password is PostgreSQL's own secret."""
    admin = write("postgres_password", secrets.token_urlsafe(32))
    roles = {"admin": ("postgres", admin)}
    for role in ("owner", "app", "system"):
        roles[role] = (f"awgp_{role}", secrets.token_urlsafe(32))
    for name, (user, password) in roles.items():
        write(f"awgp_database_{name}_url", f"postgresql+psycopg://{user}:{password}@postgres:5432/awgp")


def write_redis() -> None:
    """The control plane's own user; the default user is off, the tenants' users are made at run time."""
    password = write("redis_password", secrets.token_urlsafe(32))
    digest = hashlib.sha256(password.encode()).hexdigest()
    write("redis_acl", f"user default off\nuser awgp on #{digest} ~* &* +@all\n")
    write("awgp_redis_url", f"redis://awgp:{password}@redis:6379/0")
    write("awgp_redis_tenant_key", secrets.token_urlsafe(32))


def write_warrant_keys() -> None:
    """The control worker's signing key, and the public set that everybody else verifies with."""
    fresh = ed25519.Ed25519PrivateKey.generate().private_bytes(_PEM, _PKCS8, _PLAIN).decode()
    signer = EdDsaSigner(write("awgp_warrant_private_key", fresh))
    write("awgp_warrant_public_jwks", signer.public_jwks())


def write_certificate() -> None:
    """A self-signed certificate, good for a year."""
    if (FOLDER / "tls_certificate").exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAMES[0])]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in NAMES]), critical=False)
        .sign(key, hashes.SHA256())
    )
    write("tls_key", key.private_bytes(_PEM, _PKCS8, _PLAIN).decode())
    write("tls_certificate", certificate.public_bytes(_PEM).decode())


def write_environment() -> None:
    """`.env` beside the compose file: who owns the secrets, and the issuer to fill in."""
    path = ROOT.parent / ".env"
    if not path.exists():
        path.write_text(
            f"AWGP_UID={os.getuid() or 10001}\nAWGP_GID={os.getgid() or 10001}\n"
            "# The OIDC issuer whose tokens the API accepts (profile identity: this one).\n"
            "AWGP_OIDC_ISSUER=https://id.awgp.local/realms/awgp\n"
        )


def give_to_containers() -> None:
    """Run as root: hand the files to the uid that the processes run as."""
    if os.getuid() == 0:
        for path in (*FOLDER.iterdir(), *VOLUMES):
            os.chown(path, 10001, 10001)


def main() -> None:
    """Make everything that is missing."""
    for folder in (FOLDER, *VOLUMES):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_database_urls()
    write_redis()
    write_warrant_keys()
    write("awgp_llm_upstream_key", "")  # the operator's to fill in
    write("awgp_secret_store_key", Vault.new_key())
    write_certificate()
    write("keycloak_password", secrets.token_urlsafe(24))
    write("n8n_key", secrets.token_urlsafe(32))
    write_environment()
    give_to_containers()
    print(f"secrets are in {FOLDER.relative_to(ROOT.parent)}, settings in .env; next: docker compose up -d --wait")


if __name__ == "__main__":
    main()
