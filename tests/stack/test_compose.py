"""docker-compose.yaml as the real docker-compose reads it."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from airflow._shared.module_loading import import_string

from include.sources import REGISTRY
from include.sources.installed import SETTING, installed_sources
from include.warehouse import roles
from stack.locks import pins
from stack.postgres import SETTINGS, Server
from stack.roles import APPLICATION
from stack.settings import REPOSITORY, SIMULATOR_KEYS, SIMULATOR_TOKEN, SIMULATORS

# The package's own wrapper returns 0 on errors.
COMPOSE = Path(find_spec("compose").origin).with_name("docker-compose")
FILE = REPOSITORY / "docker-compose.yaml"
NEEDED = re.findall(r"\$\{(\w+):\?", FILE.read_text())
SECRETS = {name: f"value-of-{name.lower()}" for name in NEEDED} | {
    "SYNC_CONFIDENCE_SOURCES": ",".join(REGISTRY),
    "FERNET_KEY": f"{'value-of-fernet-key':A<43}=",
}
# As .env.example has it for a trial.
TRIAL = {"SIMULATORS": "1", "COMPOSE_PROFILES": SECRETS["SYNC_CONFIDENCE_SOURCES"]}


def compose(variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess:
    command = [str(COMPOSE), "--file", str(FILE), "--env-file", os.devnull, *arguments]
    environment = {"PATH": os.environ["PATH"], **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def services(**variables: str) -> dict[str, dict]:
    return config(**variables)["services"]


def config(**variables: str) -> dict[str, dict]:
    done = compose(SECRETS | variables, "config", "--format=json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def files(service: str, **variables: str) -> dict[str, str]:
    """The content of each file that the service finds, by its path."""
    found = config(**variables)
    mounted = found["services"][service].get("configs") or []
    return {file["target"]: found["configs"][file["source"]]["content"] for file in mounted}


CONNECTIONS = "/run/secrets/connections.yaml"


def connections(part: str = "worker", **variables: str) -> dict[str, dict | str]:
    """Airflow's connections, by name, as that part reads them."""
    return yaml.safe_load(files(part, **variables)[CONNECTIONS])


@pytest.mark.parametrize("name", sorted(set(NEEDED)))
def test_refuses_to_start_without_a_secret(name: str):
    done = compose({other: value for other, value in SECRETS.items() if other != name}, "config", "--quiet")
    assert done.returncode != 0
    assert f"{name} is missing a value: is missing in .env, see .env.example" in done.stderr


def test_example_names_every_secret_and_gives_none():
    example = (REPOSITORY / ".env.example").read_text()
    assert set(NEEDED) == set(re.findall(r"^(\w+)=$", example, re.MULTILINE))


AIRFLOW = ("api-server", "scheduler", "dag-processor", "triggerer", "worker")


def test_has_every_part_and_simulators_and_minio_only_behind_their_profile():
    parts = {"postgres", "redis", "init", *AIRFLOW}
    assert set(services()) == parts
    assert set(services(**TRIAL)) == parts | set(SIMULATORS)
    assert set(services(COMPOSE_PROFILES="minio")) == parts | {"minio"}


def test_example_names_every_source():
    assert f"separated by commas: {', '.join(REGISTRY)}.\n" in (REPOSITORY / ".env.example").read_text()


def trial_of_two(tmp_path: Path) -> dict[str, dict]:
    """The services with an .env as the example is, filled in for a trial of two sources."""
    example = (REPOSITORY / ".env.example").read_text()
    for line in ("SIMULATORS=1", "COMPOSE_PROFILES=${SYNC_CONFIDENCE_SOURCES}"):
        assert f"# {line}\n" in example
        example = example.replace(f"# {line}\n", f"{line}\n")
    for name, value in (SECRETS | {SETTING: "tekmetric, square"}).items():
        example = example.replace(f"\n{name}=\n", f"\n{name}={value}\n")
    (tmp_path / ".env").write_text(example)
    command = [str(COMPOSE), "--file", str(FILE), "--env-file", str(tmp_path / ".env"), "config", "--format=json"]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["services"]


def test_a_trial_has_the_simulators_of_its_sources_and_no_other(tmp_path: Path):
    found = trial_of_two(tmp_path)
    assert set(found) & set(SIMULATORS) == {"square", "tekmetric"}
    for name in ("init", *AIRFLOW):
        assert installed_sources(found[name]["environment"]) == ("square", "tekmetric")


@pytest.mark.parametrize("name", SIMULATORS)
def test_a_source_without_an_account_has_no_connection_and_no_invented_one(name: str):
    assert not set(SIMULATORS[name].connections) & set(connections())


def test_images_are_pinned_and_everything_that_stays_is_checked():
    for name, service in services(**TRIAL).items():
        assert re.search(r":[\w.-]*\d[\w.-]*$", service["image"]), name
        assert name == "init" or "test" in service["healthcheck"], name


def test_nothing_can_fill_the_machine():
    for name, service in services(**TRIAL | {"COMPOSE_PROFILES": f"minio,{TRIAL['COMPOSE_PROFILES']}"}).items():
        assert int(service["mem_limit"]) <= 3 * 2**30, name
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}, name


def test_a_worker_has_memory_for_its_tasks():
    worker = services()["worker"]
    tasks = int(worker["environment"]["AIRFLOW__CELERY__WORKER_CONCURRENCY"])
    assert int(worker["mem_limit"]) >= (tasks * 2 * 90 + 500) * 2**20


def test_health_checks_start_no_airflow():
    for name in AIRFLOW:
        check = services()[name]["healthcheck"]
        assert check["test"][1] in ("curl", "python"), name
        assert check["interval"] == "1m0s"


def test_postgres_is_tuned_as_the_embedded_one():
    set_ = dict(word.split("=", 1) for word in services()["postgres"]["command"] if "=" in word)
    assert len(set_) >= 9
    assert set_.items() <= SETTINGS.items()


def test_redis_keeps_its_queue():
    redis, found = services()["redis"], files("redis")
    content = found[redis["command"][-1]].splitlines()
    assert content == [f"requirepass {SECRETS['REDIS_PASSWORD']}", "appendonly yes"]


PASSWORDS = set(NEEDED) - {SETTING} | {"MINIO_PASSWORD"}
REAL = {f"AIRFLOW_CONN_{name}": f"value-of-{name}" for name in ("NOTIFICATIONS", "FLEX", "IMAGES_DB", "STORAGE")}


def test_secrets_are_in_files_only():
    """Neither in an environment, nor on a command line, but for the trial's own: invented data alone is behind them."""
    given = {"MINIO_PASSWORD": "value-of-minio", "COMPOSE_PROFILES": "minio"} | REAL
    secret = [value for name, value in (SECRETS | given).items() if name in PASSWORDS | set(REAL)]
    found = config(**given)
    assert [value for value in secret if value in json.dumps(found["services"])] == []
    assert [value for value in secret if value not in json.dumps(found["configs"])] == []


def test_a_trial_shows_no_token_and_no_password_on_a_command_line():
    for name, service in services(**TRIAL).items():
        shown = json.dumps([service["command"], service.get("entrypoint")])
        assert [secret for secret in (*SECRETS.values(), SIMULATOR_TOKEN, *SIMULATOR_KEYS) if secret in shown] == [], (
            name
        )


# They ask for none: the migrations of `init` have their URLs.
WITHOUT_CONNECTIONS = {"init", "scheduler", "triggerer"}


def test_each_part_has_only_the_connections_that_it_needs():
    given = TRIAL | {"AIRFLOW_CONN_NOTIFICATIONS": '{"conn_type": "apprise"}'}
    assert {name for name in ("init", *AIRFLOW) if CONNECTIONS not in files(name, **given)} == WITHOUT_CONNECTIONS
    assert set(connections("api-server", **given)) == {"warehouse_read"}
    assert set(connections("dag-processor", **given)) == {"warehouse", "airflow_api", "notifications"}
    sources = {name for each in SIMULATORS.values() for name in each.connections}
    own = {"warehouse", "warehouse_owner", "airflow_api", "notifications"}
    assert set(connections("worker", **given)) == own | sources


def test_each_part_finds_the_files_that_it_is_told_of():
    for name, service in services(COMPOSE_PROFILES="minio").items():
        told = re.findall(r"/run/secrets/[\w.]+", json.dumps([service, service.get("healthcheck")]))
        lacking = {CONNECTIONS} if name in WITHOUT_CONNECTIONS else set()
        assert set(told) - lacking <= set(files(name, COMPOSE_PROFILES="minio")), name


def test_airflow_reads_its_secrets_and_connections_from_the_files(tmp_path: Path):
    """With the settings of the compose file, and the files where they can be read here."""
    content = files("worker", **TRIAL)
    settings = json.dumps(services()["worker"]["environment"]).replace("/run/secrets", str(tmp_path))
    for path, text in content.items():
        (tmp_path / Path(path).name).write_text(text)
    environment = json.loads(settings) | {"AIRFLOW_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", READ], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout.splitlines()[-1])
    owner = f"metadata:{SECRETS['METADATA_PASSWORD']}@postgres:5432/airflow"
    assert read["settings"] == [
        f"postgresql+psycopg2://{owner}",
        f"db+postgresql://{owner}",
        f"redis://:{SECRETS['REDIS_PASSWORD']}@redis:6379/0",
        *(SECRETS[name] for name in ("FERNET_KEY", "SESSION_KEY", "JWT_SECRET")),
    ]
    known = {"warehouse", "warehouse_owner", "airflow_api"}
    assert set(read["connections"]) == known | {name for each in SIMULATORS.values() for name in each.connections}
    assert read["connections"]["flex"] == ["http", "http://flex:8000", "demo-token"]
    assert read["connections"]["images_db"] == ["postgres", "postgres", "invented"]


READ = """
import json
from airflow.configuration import conf, ensure_secrets_loaded
from airflow.secrets.local_filesystem import LocalFilesystemBackend
names = [("database", "sql_alchemy_conn"), ("celery", "result_backend"), ("celery", "broker_url"),
    ("core", "fernet_key"), ("api", "secret_key"), ("api_auth", "jwt_secret")]
[backend] = [each for each in ensure_secrets_loaded() if isinstance(each, LocalFilesystemBackend)]
found = {name: backend.get_connection(name) for name in backend._local_connections}
print(json.dumps({"settings": [conf.get(*name) for name in names],
    "connections": {name: [each.conn_type, each.host, each.password] for name, each in found.items()}}))
"""


@pytest.mark.parametrize(
    ("part", "connection", "role"),
    [
        ("worker", "warehouse", roles.TASKS),
        ("dag-processor", "warehouse", roles.TASKS),
        ("worker", "warehouse_owner", roles.OWNER),
        ("api-server", "warehouse_read", roles.READ),
    ],
)
def test_each_connection_to_the_warehouse_has_a_role_with_a_password_of_its_own(part: str, connection: str, role: str):
    made = json.loads(files("init")["/run/secrets/roles.json"])
    url = urlsplit(connections(part)[connection])
    assert (url.username, url.path) == (role, "/warehouse")
    assert made["passwords"][role] == url.password
    assert len({*made["passwords"].values(), urlsplit(made["superuser"]).password}) == len(made["passwords"]) + 1


def test_the_superuser_is_known_to_postgres_and_init_alone():
    found = config(**TRIAL)
    known = {name for name in found["services"] if SECRETS["POSTGRES_PASSWORD"] in str(files(name, **TRIAL))}
    assert known == {"postgres", "init"}
    assert files("postgres")[found["services"]["postgres"]["environment"]["POSTGRES_PASSWORD_FILE"]]


def test_the_application_of_a_trial_can_log_in_during_a_trial_only():
    assert "application" not in json.loads(files("init")["/run/secrets/roles.json"])["passwords"]
    assert "application" in json.loads(files("init", **TRIAL)["/run/secrets/roles.json"])["passwords"]


def test_people_and_messages_get_the_address_that_env_names():
    name = "AIRFLOW__API__BASE_URL"
    assert services()["worker"]["environment"][name] == "http://localhost:8080"
    named = services(BASE_URL="https://airflow.example.com")
    assert named["worker"]["environment"][name] == "https://airflow.example.com"


def test_another_auth_manager_is_a_setting_of_all_parts():
    name = "AIRFLOW__CORE__AUTH_MANAGER"
    [line] = re.findall(rf"^# {name}=(.+)$", (REPOSITORY / ".env.example").read_text(), re.MULTILINE)
    for found, expected in ((services(), "SimpleAuthManager"), (services(**{name: line}), "FabAuthManager")):
        for part in ("init", *AIRFLOW):
            assert found[part]["environment"][name].endswith(f".{expected}")
            assert import_string(found[part]["environment"][name])


def test_airflow_waits_for_the_migrations():
    found = services()
    for name in AIRFLOW:
        assert found[name]["depends_on"]["init"]["condition"] == "service_completed_successfully"
        assert found[name]["environment"]["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"
    assert "stack.prepare" in found["init"]["command"][0]
    assert found["init"]["depends_on"]["postgres"]["condition"] == "service_healthy"


def test_passwords_are_the_users():
    passwords = json.loads(files("init")["/run/secrets/passwords.json"])
    users = services()["api-server"]["environment"]["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"]
    assert {user.split(":")[0] for user in users.split(",")} == set(passwords)
    assert passwords["runbook"] == SECRETS["RUNBOOK_PASSWORD"]


def test_only_the_ui_is_published_and_on_the_loopback_interface():
    published = {name: service["ports"] for name, service in services(**TRIAL).items() if "ports" in service}
    assert list(published) == ["api-server"]
    assert published["api-server"][0]["host_ip"] == "127.0.0.1"


def test_a_real_account_replaces_the_simulator():
    assert connections(**TRIAL)["repairshopr"]["password"] == SIMULATOR_TOKEN
    real = {"conn_type": "http", "host": "https://shop.example.com", "password": "real"}
    for trial in ({}, TRIAL):
        assert connections(**trial, AIRFLOW_CONN_REPAIRSHOPR=json.dumps(real))["repairshopr"] == real


def read(connection: str | dict) -> dict:
    if isinstance(connection, str):
        return json.loads(connection) if connection.startswith("{") else {"url": connection}
    return connection


@pytest.mark.parametrize("name", SIMULATORS)
def test_a_simulator_and_its_connections_are_those_of_the_embedded_stack(name: str):
    """Only the rate limit differs: a worker keeps the vendor's."""
    embedded, found, declared = SIMULATORS[name], services(**TRIAL), connections(**TRIAL)
    password = {roles.TASKS: SECRETS["TASKS_PASSWORD"], APPLICATION: "invented"}[embedded.role]
    server = Server(f"postgresql://{embedded.role}:{password}@postgres:5432/postgres")
    for connection, value in embedded.connections.items():
        expected = read(value(f"http://{name}:8000", server))
        expected.get("extra", {}).pop("requests_per_minute", None)
        given = read(declared[connection])
        assert {"extra": {}} | given == {"extra": {}} | expected
    arguments = embedded.arguments(server, {})
    command = found[name]["command"]
    assert command[len(command) - len(arguments) :] == arguments
    assert (found[name].get("environment") or {}) == ({"PGPASSWORD": password} if "--database" in arguments else {})


@pytest.mark.parametrize("name", SIMULATORS)
def test_example_names_every_connection_of_a_source(name: str):
    example = (REPOSITORY / ".env.example").read_text()
    for connection in SIMULATORS[name].connections:
        assert f"# AIRFLOW_CONN_{connection.upper()}=" in example


@pytest.mark.parametrize("name", ["flex", "storage"])
def test_a_simulator_with_a_database_waits_for_its_role(name: str):
    assert services(**TRIAL)[name]["depends_on"]["init"]["condition"] == "service_completed_successfully"


def test_a_real_flex_meets_no_invented_jobs():
    command = services(**TRIAL, AIRFLOW_CONN_FLEX='{"conn_type": "http", "host": "https://x"}')["flex"]["command"]
    database = urlsplit(command[command.index("--database") + 1])
    assert database.hostname == "airflow-conn-flex-is-real.postgres"


def test_what_a_migration_exports_outlives_its_container():
    init = services()["init"]
    assert init["environment"]["WAREHOUSE_EXPORTS"] in {volume["target"] for volume in init["volumes"]}


def test_orphans_in_flex_are_deleted_unless_env_says_otherwise():
    assert services()["worker"]["environment"]["FLEX_SYNC_PRUNE_ORPHANS"] == ""
    assert services(FLEX_SYNC_PRUNE_ORPHANS="false")["worker"]["environment"]["FLEX_SYNC_PRUNE_ORPHANS"] == "false"


def test_a_real_bucket_and_its_application_replace_the_simulator():
    bucket, database = '{"conn_type": "aws", "extra": {"region_name": "eu-west-1"}}', "postgresql://app@example.com/app"
    found = connections(**TRIAL, AIRFLOW_CONN_STORAGE=bucket, AIRFLOW_CONN_IMAGES_DB=database)
    assert (found["storage"], found["images_db"]) == (json.loads(bucket), database)


def test_half_a_real_bucket_meets_a_host_that_names_the_missing_half():
    bucket = connections(**TRIAL, AIRFLOW_CONN_IMAGES_DB="postgresql://app@example.com/app")["storage"]
    assert urlsplit(bucket["extra"]["endpoint_url"]).hostname == "airflow-conn-storage-is-missing.storage"
    database = connections(**TRIAL, AIRFLOW_CONN_STORAGE='{"conn_type": "aws"}')["images_db"]
    assert urlsplit(database).hostname == "airflow-conn-images-db-is-missing.postgres"


def test_airflow_is_told_who_decides_and_whether_readiness_is_open():
    names = ("DECIDER_ROLES", "SYNC_CONFIDENCE_OPEN_READINESS")
    assert [services()["api-server"]["environment"][name] for name in names] == ["op,admin", ""]
    given = services(DECIDER_ROLES="admin", SYNC_CONFIDENCE_OPEN_READINESS="1")
    for part in AIRFLOW:
        assert [given[part]["environment"][name] for name in names] == ["admin", "1"]


def test_changes_are_applied_only_if_env_enables_it():
    assert services()["worker"]["environment"]["RECONCILE_ENABLED"] == ""
    assert services(RECONCILE_ENABLED="1")["worker"]["environment"]["RECONCILE_ENABLED"] == "1"


# What scheduler and workers import when they start: the executor, its Celery app, result backend and broker.
LOAD = """
from airflow.configuration import conf
from airflow.executors.executor_loader import ExecutorLoader
from airflow.providers.celery.executors.celery_executor import app
from celery.app.backends import by_url
executor = ExecutorLoader.load_executor(conf.get("core", "executor"))
backend, _ = by_url(app.conf.result_backend, app.loader)
print(type(executor).__name__, backend.__name__, app.connection().get_transport_cls().driver_type)
"""


def test_executor_loads_from_the_locked_packages(tmp_path: Path):
    locked = pins((REPOSITORY / "requirements.txt").read_text())
    for package in ("apache-airflow", "apache-airflow-providers-celery", "celery", "kombu", "redis"):
        assert version(package) == locked[package], f"{package} is not the lock's: run `make test`"
    settings = json.dumps(services()["scheduler"]["environment"]).replace("/run/secrets", str(tmp_path))
    for path, text in files("scheduler").items():
        (tmp_path / Path(path).name).write_text(text)
    environment = json.loads(settings) | {"AIRFLOW_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", LOAD]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "CeleryExecutor DatabaseBackend redis"


def test_image_and_lock_have_the_same_airflow():
    [image] = re.findall(r"FROM apache/airflow:([\d.]+)", (REPOSITORY / "Dockerfile").read_text())
    assert f"apache-airflow=={image} " in (REPOSITORY / "requirements.txt").read_text()
    assert all(service["image"].endswith(f":{image}") for name, service in services().items() if "build" in service)
