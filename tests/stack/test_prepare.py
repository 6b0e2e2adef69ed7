import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psycopg
import pytest

from include.sources.installed import SETTING
from include.sources.pools import declared_pools
from include.warehouse.roles import OWNER
from stack import prepare, roles
from stack.postgres import Postgres
from stack.prepare import create_missing_pools, metadata_version
from stack.settings import REPOSITORY
from tests.folders import quick_folder

# As Airflow's migration makes it.
SLOT_POOL = """
CREATE TABLE slot_pool (
    id serial PRIMARY KEY, pool varchar(256) UNIQUE, slots integer, description text,
    include_deferred boolean NOT NULL, team_name varchar(50)
)
"""


@pytest.fixture
def declared() -> Mapping[str, Mapping]:
    pool = {"slots": 1, "include_deferred": True, "description": "new"}
    return {"a_writer": pool, "b_writer": pool}


def test_missing_pools_are_created_and_a_stopped_writer_stays_stopped(warehouse_url: str, declared: Mapping):
    with psycopg.connect(warehouse_url) as connection:
        connection.execute(SLOT_POOL)
        connection.execute(
            "INSERT INTO slot_pool (pool, slots, description, include_deferred)"
            " VALUES ('b_writer', 0, 'STOPPED epoch=7', true)"
        )
    for _ in range(2):
        create_missing_pools(warehouse_url, declared)
    with psycopg.connect(warehouse_url) as connection:
        pools = connection.execute("SELECT pool, slots, description, include_deferred FROM slot_pool ORDER BY pool")
        assert pools.fetchall() == [("a_writer", 1, "new", True), ("b_writer", 0, "STOPPED epoch=7", True)]


def test_declared_pools_have_one_slot_and_count_deferred_tasks():
    for name, pool in declared_pools().items():
        assert name.endswith("_writer")
        assert (pool["slots"], pool["include_deferred"]) == (1, True)


def test_a_pool_comes_with_its_source_and_stays_as_it_was_without_it(
    warehouse_url: str, monkeypatch: pytest.MonkeyPatch
):
    with psycopg.connect(warehouse_url) as connection:
        connection.execute(SLOT_POOL)
    seen = []
    for setting in ("square", "square,flex", "flex", "square,flex"):
        monkeypatch.setenv(SETTING, setting)
        create_missing_pools(warehouse_url, declared_pools())
        with psycopg.connect(warehouse_url) as connection:
            seen.append(connection.execute("SELECT pool, slots FROM slot_pool ORDER BY pool").fetchall())
            # As a run leaves it that has stopped the writer.
            connection.execute("UPDATE slot_pool SET slots = 0 WHERE pool = 'square_writer'")
    both = [("flex_writer", 1), ("square_writer", 0)]
    assert seen == [[("square_writer", 1)], both, both, both]


@pytest.mark.parametrize("setting", ["", "sqare"])
def test_a_wrong_choice_of_sources_is_refused_before_anything(setting: str):
    command = [sys.executable, "-m", "stack.prepare"]
    environment = {SETTING: setting, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://nobody@127.0.0.1:1/none"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"prepare: {SETTING}='{setting}' in the environment ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["--help"], {}, (0, "usage: python -m stack.prepare")),
        (["now"], {}, (2, "usage: python -m stack.prepare")),
        ([], {}, (1, "prepare: AIRFLOW__DATABASE__SQL_ALCHEMY_CONN is not in the environment")),
        ([], {"ROLES_FILE": "/nowhere.json"}, (1, "prepare: ROLES_FILE=/nowhere.json can't be read as JSON")),
        ([], {"ROLES_FILE": "closed.json"}, (1, "prepare: the superuser that ROLES_FILE=")),
    ],
)
def test_what_is_missing_is_said_before_anything_is_made(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    environment: dict[str, str],
    said: tuple[int, str],
):
    monkeypatch.chdir(tmp_path)
    Path("closed.json").write_text(
        json.dumps({"superuser": "postgresql://who:secret@127.0.0.1:1/postgres", "passwords": {OWNER: "secret"}})
    )
    metadata = {prepare.METADATA_SETTING: "postgresql://127.0.0.1:1/none"} if environment else {}
    monkeypatch.setattr(os, "environ", {**metadata, **environment})
    monkeypatch.setattr(sys, "argv", ["prepare", *arguments])
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("something was made"))
    with pytest.raises(SystemExit) as ended:
        prepare.main()
    output = capsys.readouterr()
    # As Python ends: a message goes to stderr, with code 1.
    told = (1, ended.value.code) if isinstance(ended.value.code, str) else (ended.value.code, output.err or output.out)
    code, beginning = said
    assert (told[0], told[1][: len(beginning)]) == (code, beginning)
    assert "secret" not in told[1]


def test_metadata_version_changes_with_the_schema(warehouse_url: str):
    assert metadata_version(warehouse_url) == "none"
    seen = set()
    for revision in ("one", "two"):
        with psycopg.connect(warehouse_url) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num text)")
            connection.execute("DELETE FROM alembic_version")
            connection.execute("INSERT INTO alembic_version VALUES (%s)", [revision])
        seen.add(metadata_version(warehouse_url))
    assert len(seen) == 2


def test_roles_of_a_file_are_made_and_the_warehouse_is_its_owners(tmp_path: Path):
    with quick_folder("prepare") as folder, Postgres(folder / "postgres", settings={"fsync": "off"}) as server:
        passwords = {role: f"the {role}'s" for role in roles.ALL}
        file = tmp_path / "roles.json"
        file.write_text(json.dumps({"superuser": server.url("postgres"), "passwords": passwords}))
        [url] = prepare._set_up_roles(file).values()
        with psycopg.connect(url) as connection:
            found = "SELECT current_user, pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'warehouse'"
            assert connection.execute(found).fetchone() == (OWNER, OWNER)
        file.write_text(json.dumps({"superuser": url, "passwords": passwords}))
        with pytest.raises(prepare.NotPrepared, match="is no superuser"):
            prepare._set_up_roles(file)


def test_a_setting_is_a_value_or_what_a_command_prints(tmp_path: Path):
    (tmp_path / "url").write_text("postgresql+psycopg2://who@here/airflow")
    command = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD": f"cat {tmp_path}/url"}
    assert prepare.metadata_url(command) == "postgresql://who@here/airflow"
    assert prepare.setting({"NAME": "value", "NAME_CMD": "false"}, "NAME") == "value"
