"""What the stack is made of: its folder, ports, secrets, and the environment of every Airflow process."""

import base64
import json
import os
import secrets
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from stack.ports import LOOPBACK, first_free, free_ports
from stack.postgres import Postgres, Server

REPOSITORY = Path(__file__).resolve().parents[1]
API_PORT = 8080
# `runbook` is the service user by which tasks reach Airflow's REST API; the others are people.
USERS = {"admin": "admin", "runbook": "op", "oncall": "op", "viewer": "viewer"}
# Vendors that a simulator stands in for; each is the name of its connection and of its package.
SIMULATORS = ("repairshopr",)
# What a simulator takes as its token: it guards nothing but invented data.
SIMULATOR_TOKEN = "demo-token"


@dataclass(frozen=True)
class Home:
    """The one folder in which everything lies that the stack writes."""

    folder: Path

    @classmethod
    def default(cls) -> Self:
        return cls(Path(os.environ.get("STACK_HOME") or REPOSITORY / ".stack").absolute())

    @property
    def airflow(self) -> Path:
        return self.folder / "airflow"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def state(self) -> Path:
        return self.folder / "state.json"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    def postgres(self, inherited: Mapping[str, str]) -> Server:
        """The stack's server: the one that the caller's STACK_POSTGRES_URL names, else the embedded one."""
        named = inherited.get("STACK_POSTGRES_URL")
        return Server(named) if named else Postgres(self.folder / "postgres")


@dataclass(frozen=True)
class Ports:
    """Where the stack's servers listen on the loopback interface."""

    api: int
    worker_log: int
    trigger_log: int
    simulators: dict[str, int]

    @classmethod
    def choose(cls, api: int) -> Self:
        """`api` if it is free, else the next free port; 0 = any free one. All others are any free ones."""
        any_api, worker_log, trigger_log, *simulators = free_ports(3 + len(SIMULATORS))
        return cls(
            api=first_free(api) if api else any_api,
            worker_log=worker_log,
            trigger_log=trigger_log,
            simulators=dict(zip(SIMULATORS, simulators, strict=True)),
        )


@dataclass(frozen=True)
class Secrets:
    """Generated once for each home and kept there, readable by its owner only."""

    fernet_key: str
    jwt_secret: str
    session_key: str
    passwords: dict[str, str]

    @classmethod
    def of(cls, home: Home) -> Self:
        """The home's secrets, made at the first call."""
        path = home.folder / "secrets.json"
        if not path.exists():
            home.airflow.mkdir(parents=True, exist_ok=True)
            made = cls(
                fernet_key=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
                jwt_secret=secrets.token_urlsafe(64),
                session_key=secrets.token_urlsafe(32),
                passwords={user: secrets.token_urlsafe(12) for user in USERS},
            )
            write_private(home.airflow / "passwords.json", json.dumps(made.passwords))
            write_private(path, json.dumps(asdict(made)))
        return cls(**json.loads(path.read_text()))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read; readers see the old text or the new, never a part."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_text(text)
    unfinished.rename(path)


def environment(home: Home, ports: Ports, postgres: Server, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of every Airflow process.

    What the caller has set (`inherited`) wins, a connection to a real account above all; only what belongs to
    the stack alone (its folder, database, addresses, users and keys) is always the stack's.
    """
    known = Secrets.of(home)
    own = _places(home, ports, postgres) | _users_and_keys(home, known)
    own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), inherited.get("PYTHONPATH")]))
    # Airflow's own calls must not go through a proxy.
    no_proxy = ",".join(filter(None, [inherited.get("NO_PROXY"), LOOPBACK, "localhost"]))
    own |= {"NO_PROXY": no_proxy, "no_proxy": no_proxy}
    return _defaults() | _connections(ports, postgres, known) | dict(inherited) | own


def api_url(ports: Ports) -> str:
    return f"http://localhost:{ports.api}"


def simulator_url(name: str, ports: Ports) -> str:
    return f"http://{LOOPBACK}:{ports.simulators[name]}"


def simulated(inherited: Mapping[str, str]) -> list[str]:
    """The vendors that need a simulator: those whose connection the caller has not set."""
    return [name for name in SIMULATORS if _connection_variable(name) not in inherited]


def simulator_command(name: str, ports: Ports, inherited: Mapping[str, str]) -> list[str]:
    """How the simulator of a vendor is started.

    Without the vendor's rate limit, to which the stack's connection doesn't keep either: nobody shares this API.
    STACK_<NAME>_OPTIONS replaces that.
    """
    options = shlex.split(inherited.get(f"STACK_{name.upper()}_OPTIONS", "--no-limit"))
    return [
        sys.executable,
        "-m",
        f"include.simulators.{name}",
        "--port",
        str(ports.simulators[name]),
        *options,
    ]


def _places(home: Home, ports: Ports, postgres: Server) -> dict[str, str]:
    database = urlsplit(postgres.url("airflow"))._replace(scheme="postgresql+psycopg2").geturl()
    return {
        "AIRFLOW_HOME": str(home.airflow),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        "AIRFLOW__API__HOST": LOOPBACK,
        "AIRFLOW__API__PORT": str(ports.api),
        "AIRFLOW__API__BASE_URL": api_url(ports),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{api_url(ports)}/execution/",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(ports.worker_log),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(ports.trigger_log),
    }


def _users_and_keys(home: Home, known: Secrets) -> dict[str, str]:
    return {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{role}" for user, role in USERS.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home.airflow / "passwords.json"),
        "AIRFLOW__CORE__FERNET_KEY": known.fernet_key,
        "AIRFLOW__API__SECRET_KEY": known.session_key,
        "AIRFLOW__API_AUTH__JWT_SECRET": known.jwt_secret,
    }


def _defaults() -> dict[str, str]:
    return {
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "30",
        # A changed DAG file shows within seconds; Airflow's own default for new files is five minutes.
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
    }


def _connections(ports: Ports, postgres: Server, known: Secrets) -> dict[str, str]:
    service = {"login": "runbook", "password": known.passwords["runbook"]}
    connections = {
        "warehouse": postgres.url("warehouse"),
        "airflow_api": json.dumps({"conn_type": "http", "host": api_url(ports), **service}),
    }
    for name in SIMULATORS:
        simulator = {
            "host": simulator_url(name, ports),
            "password": SIMULATOR_TOKEN,
            "extra": {"requests_per_minute": 0},
        }
        connections[name] = json.dumps({"conn_type": "http", **simulator})
    return {_connection_variable(name): value for name, value in connections.items()}


def _connection_variable(name: str) -> str:
    return f"AIRFLOW_CONN_{name.upper()}"
