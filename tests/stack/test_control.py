import fcntl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.sources.installed import SETTING
from stack import supervisor
from stack.control import Stack
from stack.guardian import StackError
from stack.ports import free_port
from stack.settings import REPOSITORY, Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def in_use(home: Home) -> Iterator[Home]:
    """A home that another process holds."""
    home.folder.mkdir()
    with home.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield home


def test_a_stack_that_never_ran(home: Home):
    stack = Stack(home.folder)
    stack.stop()
    assert not stack.runs
    assert not stack.is_ready
    with pytest.raises(StackError, match=r"isn't up: `python -m stack up` starts it"):
        _ = stack.api_url


def test_one_home_has_one_stack(in_use: Home, capsys: pytest.CaptureFixture):
    assert Stack(in_use.folder).runs
    assert supervisor.run(in_use, 0) == 1
    assert "is in use by a running stack: `python -m stack down` ends it" in capsys.readouterr().out
    with pytest.raises(StackError, match="is in use by a running stack"), Stack(in_use.folder):
        pass


def test_what_a_crashed_stack_left_in_its_folder_does_not_count_as_running(home: Home):
    home.folder.mkdir()
    home.lock.write_text("1")
    home.state.write_text("{}")
    assert not Stack(home.folder).runs
    assert not Stack(home.folder).is_ready


def test_a_stack_that_does_not_start_says_why_in_a_line_and_is_gone(home: Home):
    port = free_port()
    named = f"postgresql://who:secret@127.0.0.1:{port}/postgres"
    with pytest.raises(StackError) as told, Stack(home.folder, settings={"STACK_POSTGRES_URL": named}):
        pass
    assert f"Postgres at 127.0.0.1:{port}: can't connect" in str(told.value)
    assert "secret" not in str(told.value)
    assert "Traceback" not in str(told.value)
    assert not Stack(home.folder).runs


def test_half_a_real_account_starts_nothing(home: Home):
    told = "AIRFLOW_CONN_IMAGES_DB is missing beside AIRFLOW_CONN_STORAGE"
    with pytest.raises(StackError, match=told), Stack(home.folder, settings={"AIRFLOW_CONN_STORAGE": "real"}):
        pass
    assert not (home.folder / "postgres").exists()


@pytest.mark.parametrize("setting", ["", "sqare"])
def test_a_wrong_choice_of_sources_starts_nothing_and_says_why_in_a_line(home: Home, setting: str):
    told = f"^stack: {SETTING}='{setting}' in the environment .*: name one or more of .*\n.*the stack didn't start"
    with pytest.raises(StackError, match=told) as failed, Stack(home.folder, settings={SETTING: setting}):
        pass
    assert "Traceback" not in str(failed.value)
    assert not (home.folder / "postgres").exists()


def test_env_of_a_stack_that_is_down_is_refused(home: Home):
    command = [sys.executable, "-m", "stack", "env"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env={"STACK_HOME": str(home.folder)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == "stack: the stack isn't up: `python -m stack up` starts it\n"
