"""What the stack is made of: its folder, ports, secrets, and the environment of every Airflow process."""

import base64
import json
import os
import secrets
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlencode, urlsplit

from include.sources.installed import WrongSources, installed_sources
from include.warehouse.roles import OWNER, READ, TASKS
from stack.guardian import StackError
from stack.ports import LOOPBACK, first_free, free_ports
from stack.postgres import Postgres, Server
from stack.roles import APPLICATION, METADATA

REPOSITORY = Path(__file__).resolve().parents[1]
API_PORT = 8080
# `runbook` is the service user by which tasks reach Airflow's REST API; the others are people.
USERS = {"admin": "admin", "runbook": "op", "oncall": "op", "viewer": "viewer"}
# What simulators take as their token and their keys by default: they guard nothing but invented data.
SIMULATOR_TOKEN = "demo-token"
SIMULATOR_KEYS = ("demo-access", "demo-secret")
BUCKET = "images"
# Of the simulated shops: what their API doesn't tell.
SHOPS = [
    {"tm_id": 6212, "name": "JJ AUTO", "timezone": "America/New_York"},
    {"tm_id": 7301, "name": "Desert Auto", "timezone": "America/Phoenix"},
]
# Of the simulated rental account: its ids of what a contact can be on a crew call.
BUSINESS_ROLES = {
    "sound": {
        "responsible": "6b1e3f0a-2c54-4d5b-9a10-5f0c7e1d0001",
        "specialist": "6b1e3f0a-2c54-4d5b-9a10-5f0c7e1d0002",
        "technician": "6b1e3f0a-2c54-4d5b-9a10-5f0c7e1d0003",
    }
}
# The arguments of a simulator, given the stack's Postgres and what the caller has set.
Arguments = Callable[[Server, Mapping[str, str]], list[str]]
# Where `make` puts it; the storage simulator serves its objects with it.
RCLONE = REPOSITORY / ".venv" / "rclone" / "rclone"


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
    def ended(self) -> Path:
        """Why the stack ended, if nobody had asked for it."""
        return self.folder / "ended"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    def postgres(self, inherited: Mapping[str, str]) -> Server:
        """Return the stack's server: the one that the caller's STACK_POSTGRES_URL names, else the embedded one."""
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
        """Choose free ports. For Airflow's API `api` or the next free one, if it is not 0; for all others any."""
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
        """Return the home's secrets, made at the first call."""
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


@dataclass(frozen=True)
class Simulator:
    """A simulator that runs while the caller has not set the vendor's connections.

    `connections`: the value of each connection by its name, given the simulator's URL and the stack's Postgres. `role`:
    that of its database.
    `arguments`: the arguments that it always gets.
    `options`: the arguments that STACK_<NAME>_OPTIONS replaces, given the stack's home.
    """

    connections: Mapping[str, Callable[[str, Server], str]]
    arguments: Arguments
    options: Callable[[Home], list[str]]
    role: str = TASKS


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read; readers see the old text or the new, never a part."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_text(text)
    unfinished.rename(path)


def environment(home: Home, ports: Ports, postgres: Server, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of every Airflow process.

    What the caller has set (`inherited`) wins, a connection to a real account above all; only what belongs to
    the stack alone (its folder, database, addresses, users and keys) is always the stack's.
    """
    known = Secrets.of(home)
    own = _places(home, ports, postgres) | _users_and_keys(home, known)
    own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), inherited.get("PYTHONPATH")]))
    # Airflow's own calls must not go through a proxy.
    no_proxy = ",".join(filter(None, [inherited.get("NO_PROXY"), LOOPBACK, "localhost"]))
    own |= {"NO_PROXY": no_proxy, "no_proxy": no_proxy}
    return _defaults() | _connections(ports, postgres, known, inherited) | dict(inherited) | own


def api_url(ports: Ports) -> str:
    return f"http://localhost:{ports.api}"


def simulator_url(name: str, ports: Ports) -> str:
    return f"http://{LOOPBACK}:{ports.simulators[name]}"


def simulated(inherited: Mapping[str, str]) -> list[str]:
    """Return the vendors that need a simulator: sources of the installation whose connections the caller has not set.

    Raises `StackError` when only some of a vendor's are set: real and invented data must not be compared.
    """
    return [name for name in _with_simulator(inherited) if not _is_real(name, inherited)]


def sources_of(inherited: Mapping[str, str]) -> tuple[str, ...]:
    """Return the sources that the caller's setting names, or all. Raises `StackError` when it is wrong."""
    try:
        return installed_sources(inherited)
    except WrongSources as error:
        raise StackError(str(error)) from None


def simulator_command(name: str, home: Home, ports: Ports, postgres: Server, inherited: Mapping[str, str]) -> list[str]:
    """Return the command that starts a vendor's simulator, in the environment that `simulator_environment` gives."""
    simulator = SIMULATORS[name]
    given = inherited.get(f"STACK_{name.upper()}_OPTIONS")
    return [
        sys.executable,
        "-m",
        f"include.simulators.{name}",
        "--port",
        str(ports.simulators[name]),
        *simulator.arguments(postgres, inherited),
        *(simulator.options(home) if given is None else shlex.split(given)),
    ]


def simulator_environment(name: str, postgres: Server, process_environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a simulator: nothing of Airflow's, whose keys and connections are no vendor's to know.

    The password of Postgres is in it, since a command line would show it to all.
    """
    password = urlsplit(postgres.url("warehouse", SIMULATORS[name].role)).password
    own = {variable: value for variable, value in process_environment.items() if not variable.startswith("AIRFLOW_")}
    return {**own, "PGPASSWORD": unquote(password or "")}


def _places(home: Home, ports: Ports, postgres: Server) -> dict[str, str]:
    database = urlsplit(postgres.url("airflow", METADATA))._replace(scheme="postgresql+psycopg2").geturl()
    return {
        "AIRFLOW_HOME": str(home.airflow),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        "AIRFLOW__API__HOST": LOOPBACK,
        "AIRFLOW__API__PORT": str(ports.api),
        "AIRFLOW__API__BASE_URL": api_url(ports),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{api_url(ports)}/execution/",
        # All parts run on this machine, and their log servers listen on no other address.
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "stack.ports.hostname",
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
        # A new or changed DAG file shows within seconds; Airflow's own default for new files is five minutes.
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
    }


def _connections(ports: Ports, postgres: Server, known: Secrets, inherited: Mapping[str, str]) -> dict[str, str]:
    service = {"login": "runbook", "password": known.passwords["runbook"]}
    connections = {"airflow_api": json.dumps({"conn_type": "http", "host": api_url(ports), **service})}
    # If the caller sets the warehouse's connection, the stack adds none with other roles.
    if _connection_variable("warehouse") not in inherited:
        own = {"warehouse": TASKS, "warehouse_owner": OWNER, "warehouse_read": READ}
        connections |= {name: postgres.url("warehouse", role) for name, role in own.items()}
    for name in _with_simulator(inherited):
        url, made = simulator_url(name, ports), SIMULATORS[name].connections
        connections |= {connection: make(url, postgres) for connection, make in made.items()}
    return {_connection_variable(name): value for name, value in connections.items()}


def _with_simulator(inherited: Mapping[str, str]) -> list[str]:
    """Return the sources of the installation that have a simulator."""
    return [name for name in sources_of(inherited) if name in SIMULATORS]


def _connection_variable(name: str) -> str:
    return f"AIRFLOW_CONN_{name.upper()}"


def _is_real(name: str, inherited: Mapping[str, str]) -> bool:
    variables = [_connection_variable(connection) for connection in SIMULATORS[name].connections]
    given = [variable for variable in variables if variable in inherited]
    missing = [variable for variable in variables if variable not in inherited]
    if given and missing:
        raise StackError(
            f"{' and '.join(missing)} is missing, but {' and '.join(given)} is set: "
            f"set both for a real {name}, or neither for a simulated one"
        )
    return not missing


def _api_connection(url: str, extra: Mapping[str, Any]) -> str:
    extra = {"requests_per_minute": 0, **extra}
    return json.dumps({"conn_type": "http", "host": url, "password": SIMULATOR_TOKEN, "extra": extra})


def _bucket_connection(url: str) -> str:
    login, password = SIMULATOR_KEYS
    extra = {
        "endpoint_url": url,
        "region_name": "us-east-1",
        "service_config": {"s3": {"bucket_name": BUCKET}},
        "config_kwargs": {"s3": {"addressing_style": "path"}},
    }
    return json.dumps({"conn_type": "aws", "login": login, "password": password, "extra": extra})


def _application_url(postgres: Server, schema: str, role: str) -> str:
    """Return the libpq URL of a simulated application's tables: a schema of the stack's own warehouse."""
    url = urlsplit(postgres.url("warehouse", role))
    query = "&".join(filter(None, [url.query, urlencode({"options": f"-csearch_path={schema}"})]))
    return url._replace(query=query).geturl()


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    user, _, server = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}@{server}").geturl()


def _none(postgres: Server, inherited: Mapping[str, str]) -> list[str]:
    return []


def _flex_arguments(postgres: Server, inherited: Mapping[str, str]) -> list[str]:
    database = ["--database", _without_password(_application_url(postgres, "flex", TASKS))]
    # No invented jobs for a warehouse that may hold real ones.
    known = [] if _connection_variable("warehouse") in inherited else database
    return [*known, "--roles", *BUSINESS_ROLES["sound"].values()]


def _storage_arguments(postgres: Server, inherited: Mapping[str, str]) -> list[str]:
    return ["--database", _without_password(_application_url(postgres, "app", APPLICATION)), "--bucket", BUCKET]


def _tekmetric_arguments(postgres: Server, inherited: Mapping[str, str]) -> list[str]:
    return ["--shops", json.dumps(SHOPS)]


def _api(name: str, *options: str, arguments: Arguments = _none, **extra: Any) -> Simulator:
    """Return the simulator of a REST API with one connection of its own name; `extra` goes into the connection."""
    connections = {name: lambda url, postgres: _api_connection(url, extra)}
    return Simulator(connections, arguments, options=lambda home: list(options))


def _packages() -> list[str]:
    return sorted(path.parent.name for path in (REPOSITORY / "include" / "simulators").glob("*/__init__.py"))


# By the source's name: every package in include/simulators. Listed are those that need arguments or options.
SIMULATORS = {name: _api(name) for name in _packages()} | {
    "flex": _api("flex", arguments=_flex_arguments, business_roles=BUSINESS_ROLES),
    # Without a rate limit: nobody shares this API.
    "repairshopr": _api("repairshopr", "--no-limit"),
    "square": _api("square", "--orders", "300"),
    "storage": Simulator(
        connections={
            "storage": lambda url, postgres: _bucket_connection(url),
            "images_db": lambda url, postgres: _application_url(postgres, "app", APPLICATION),
        },
        arguments=_storage_arguments,
        options=lambda home: ["--rclone", str(RCLONE), "--folder", str(home.folder / "objects")],
        role=APPLICATION,
    ),
    "tekmetric": _api("tekmetric", "--orders", "150", arguments=_tekmetric_arguments, shops=SHOPS),
}
