import fcntl
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from include.confidence import messages, outbox
from include.sources.installed import SETTING
from stack import supervisor
from stack.control import Stack
from stack.guardian import StackError, Stopped
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
    told = "AIRFLOW_CONN_IMAGES_DB is missing, but AIRFLOW_CONN_STORAGE is set"
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


class TestCrash:
    """What a start says of the end before, without Airflow."""

    @pytest.fixture
    def family(self) -> SimpleNamespace:
        """One of whose processes has ended by itself."""

        def wait() -> None:
            raise StackError("scheduler ended (killed by SIGKILL): see /logs/scheduler.log")

        return SimpleNamespace(wait=wait)

    @pytest.fixture
    def noted(self, home: Home) -> Home:
        home.folder.mkdir()
        home.ended.write_text("at 2026-01-01 00:00 UTC, since scheduler ended")
        return home

    def test_reason_is_kept(self, home: Home, family: SimpleNamespace):
        home.folder.mkdir()
        with pytest.raises(StackError):
            supervisor._watch(family, home)
        assert re.fullmatch(r"at 20\S+ \S+ UTC, since scheduler ended \(killed by SIGKILL\).*", home.ended.read_text())

    def test_whole_that_is_killed_has_left_its_note_before(self, home: Home):
        home.folder.mkdir()
        seen: list[str] = []

        def wait() -> None:
            seen.append(home.ended.read_text())
            raise Stopped

        with pytest.raises(Stopped):
            supervisor._watch(SimpleNamespace(wait=wait), home)
        assert "killed as a whole, or the machine was lost" in seen[0]

    @pytest.mark.parametrize(("code", "kept"), [(0, False), (1, True)])
    def test_end_that_was_asked_for_is_no_crash(self, noted: Home, monkeypatch: pytest.MonkeyPatch, code, kept):
        monkeypatch.setattr(supervisor, "guarded", lambda *_: code)
        assert supervisor.run(noted, 0) == code
        assert noted.ended.exists() == kept

    def test_people_are_told_once(self, conn: psycopg.Connection, warehouse: str):
        for _ in range(2):
            supervisor._note(messages.of_crash("at noon, since scheduler ended", "http://x"), warehouse)
        sent: list[messages.Event] = []
        while outbox.send_next(conn, lambda event: not sent.append(event)):
            pass
        [event] = sent
        assert event.title == "Airflow is running again after a crash"
        assert "at noon, since scheduler ended" in event.text
