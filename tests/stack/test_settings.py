import json
import socket
import stat
from pathlib import Path

import pytest

from stack.ports import LOOPBACK, is_free
from stack.postgres import Server
from stack.settings import (
    REPOSITORY,
    Home,
    Ports,
    Secrets,
    environment,
    simulated,
    simulator_command,
    simulator_url,
)

PORTS = Ports(api=1, worker_log=2, trigger_log=3, simulators={"repairshopr": 4})
POSTGRES = Server("postgresql://who:secret@elsewhere:5/postgres")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


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
    assert env["AIRFLOW_CONN_WAREHOUSE"] == "postgresql://who:secret@elsewhere:5/warehouse"
    assert env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://localhost:1/execution/"
    service = json.loads(env["AIRFLOW_CONN_AIRFLOW_API"])
    assert service["host"] == "http://localhost:1"
    assert (service["login"], service["password"]) == ("runbook", Secrets.of(home).passwords["runbook"])
    assert json.loads(env["AIRFLOW_CONN_REPAIRSHOPR"])["host"] == simulator_url("repairshopr", PORTS)


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


def test_a_vendor_with_a_real_account_has_no_simulator():
    assert simulated({}) == ["repairshopr"]
    assert simulated({"AIRFLOW_CONN_REPAIRSHOPR": "real"}) == []


def test_a_simulator_takes_options_from_its_variable():
    command = simulator_command("repairshopr", PORTS, {"STACK_REPAIRSHOPR_OPTIONS": "--seed 7 --no-limit"})
    assert command[1:] == ["-m", "include.simulators.repairshopr", "--port", "4", "--seed", "7", "--no-limit"]


def test_a_busy_api_port_is_avoided():
    with socket.create_server((LOOPBACK, 0)) as server:
        busy = server.getsockname()[1]
        assert not is_free(busy)
        assert Ports.choose(busy).api > busy


def test_chosen_ports_differ():
    ports = Ports.choose(0)
    assert len({ports.api, ports.worker_log, ports.trigger_log, *ports.simulators.values()}) == 4
