"""Several machines: CeleryExecutor, a real Redis and two workers, of which one is lost, frozen, or cut off."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations

import psycopg
import pytest

from include.warehouse import fence
from stack import alive
from stack.airflow import ENDED, until
from stack.alive import is_alive
from stack.ports import hostname, is_free
from tests.folders import quick_folder
from tests.running_platform import RECONCILE, SOURCE, SYNC, Platform, started
from tests.workers import Redis, Worker

PER_MINUTE = 480
OTHER_SYNC, OTHER_RECONCILE = "storage_sync", "storage_reconcile"
SETTINGS = {
    "SYNC_CONFIDENCE_SOURCES": "repairshopr,storage",
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    # A task whose message a lost worker had taken is queued anew soon.
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "15",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "3",
}


@dataclass(frozen=True)
class Site:
    """The platform, whose tasks run on two workers."""

    platform: Platform
    redis: Redis
    workers: tuple[Worker, Worker]

    def bring_up(self) -> None:
        """Start what a test has ended."""
        self.redis.start()
        for worker in self.workers:
            worker.start()
            worker.thaw()
        for worker in self.workers:
            worker.wait_until_ready()

    def worker_of(self, pid: int) -> Worker:
        """The worker that has the process."""
        (worker,) = [worker for worker in self.workers if worker.has(pid)]
        return worker


def limited(connection: str) -> str:
    """The connection with the rate limit that all workers share."""
    read = json.loads(connection)
    return json.dumps(read | {"extra": {"requests_per_minute": PER_MINUTE}})


@pytest.fixture(scope="module")
def running_site() -> Iterator[Site]:
    with ExitStack() as running:
        folder = running.enter_context(quick_folder("redis"))
        redis = running.enter_context(Redis(folder / "redis"))
        platform = running.enter_context(started(**SETTINGS, AIRFLOW__CELERY__BROKER_URL=redis.url))
        logs, env = platform.stack.home.logs, platform.stack.env
        env["AIRFLOW_CONN_REPAIRSHOPR"] = limited(env["AIRFLOW_CONN_REPAIRSHOPR"])
        one, two = (running.enter_context(Worker(name, logs, env)) for name in ("one", "two"))
        yield Site(platform, redis, (one, two))
    assert is_free(redis.port)


@pytest.fixture
def site(running_site: Site) -> Site:
    running_site.bring_up()
    running_site.platform.reset()
    return running_site


def requests(site: Site) -> int:
    return sum(sum(answers.values()) for answers in site.platform.shop.counters().requests.values())


def lines_written(site: Site) -> int:
    """How often a line item was written since the reset, whose sync is the first."""
    ((written,),) = site.platform.query(
        "SELECT count(*) FROM confidence.change_log WHERE table_name = 'repairshopr.line_items'"
        " AND sync_id > (SELECT max(sync_id) FROM confidence.sync_log WHERE run = 'tests/reset')"
    )
    return written


def test_health_checks_find_each_part_on_its_machine_only(site: Site, monkeypatch: pytest.MonkeyPatch):
    env = site.platform.stack.env
    for part in ("dag-processor", "triggerer"):
        assert is_alive(part, env, hostname())
        assert not is_alive(part, env, "elsewhere")
    assert all(is_alive("worker", env, worker.name) for worker in site.workers)
    # Each heartbeat is too old.
    monkeypatch.setattr(alive, "SILENT_SECONDS", -60)
    assert not any(is_alive(part, env, hostname()) for part in ("dag-processor", "triggerer"))


def test_two_runbooks_share_both_workers_and_the_rate_limit(site: Site):
    platform = site.platform
    platform.shop.set(page_sizes=dict.fromkeys(("customers", "invoices", "line_items", "payments"), 8))
    before = [worker.tasks(RECONCILE) for worker in site.workers]
    runs = [(dag, platform.airflow.trigger(dag)) for dag in (RECONCILE, OTHER_RECONCILE)]
    looks = []
    while {platform.airflow.state(*run) for run in runs} - set(ENDED):
        looks.append((time.monotonic(), requests(site), time.monotonic()))
        time.sleep(0.5)
    assert [platform.airflow.state(*run) for run in runs] == ["success"] * 2
    assert all(worker.tasks(RECONCILE) > tasks for worker, tasks in zip(site.workers, before, strict=True))
    assert looks[-1][1] - looks[0][1] > 50
    for (start, first, _), (_, last, end) in combinations(looks, 2):
        # Those on their way at either end are a few more.
        assert last - first <= (end - start) * PER_MINUTE / 60 + 6


@pytest.mark.drill("killed-worker")
def test_lost_workers_are_replaced_in_scan_and_repair_and_nothing_is_doubled(site: Site):
    platform = site.platform
    platform.lose(3)
    platform.shop.set(latency_ms=700, page_sizes={"line_items": 20})
    run_id = platform.airflow.trigger(RECONCILE, dry_run=False, progress_every=1)
    run = f"{RECONCILE}/{run_id}"
    until(lambda: len(platform.sessions_of(run)) > 2, "scans to run", 60)
    lost = site.worker_of(min(platform.sessions_of(run)))
    lost.kill()
    lost.start()
    with psycopg.connect(platform.stack.warehouse_url) as blocker:
        blocker.execute("LOCK confidence.change_log IN EXCLUSIVE MODE")
        platform.shop.set(latency_ms=0)
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'relation'"
        until(lambda: bool(platform.query(waiting)), "the repair to wait inside its transaction", 120)
        lost.wait_until_ready()
        site.worker_of(platform.session_of(run)).kill()
        # Postgres ends the lost session, which holds the repair's lock, before the next try needs it.
        until(lambda: platform.attempt(run_id, "reconcile") == (2, "running"), "the repair's second try", 90)
        until(lambda: bool(platform.query(waiting)), "it to wait inside its transaction", 30)
    assert platform.airflow.wait(RECONCILE, run_id, timeout=120) == "success"
    assert platform.in_step()
    assert lines_written(site) == 3
    assert platform.writer().runs
    assert platform.service.titles == []


@pytest.mark.drill("frozen-worker")
def test_a_frozen_worker_that_comes_back_is_refused_and_alarms_nobody(site: Site):
    platform = site.platform
    platform.lose(3)
    platform.execute("DELETE FROM confidence.sync_state")
    platform.shop.set(latency_ms=1000)
    run_id = platform.airflow.trigger(SYNC)
    late = platform.session_of(f"{SYNC}/{run_id}")
    frozen = site.worker_of(late)
    frozen.freeze()
    env = platform.stack.env
    assert [is_alive("worker", env, worker.name) for worker in site.workers] == [w is not frozen for w in site.workers]
    platform.shop.set(latency_ms=0)
    assert platform.airflow.wait(SYNC, run_id, timeout=120) == "success"
    assert platform.in_step()
    with platform.warehouse() as conn:
        fence.stop(conn, SOURCE, "tests/run", 10)
        fence.resume(conn, SOURCE, "tests/run")
    # First the task alone, which the process that watches it would end.
    os.kill(late, signal.SIGCONT)
    session = "SELECT 1 FROM pg_stat_activity WHERE application_name = %s"
    until(lambda: not platform.query(session, f"{SYNC}/{run_id}"[:63]), "the late try to give up", 60)
    frozen.thaw()
    until(lambda: not frozen.has(late), "the late task to end", 60)
    assert "was stopped or rolled back since this task began" in platform.airflow.log(SYNC, run_id, "sync", 1)
    assert lines_written(site) == 3
    assert platform.airflow.state(SYNC, run_id) == "success"
    assert platform.service.titles == []


@pytest.mark.drill("killed-redis")
def test_redis_gone_for_seconds_loses_no_task(site: Site):
    platform = site.platform
    platform.shop.set(latency_ms=1000)
    run_id = platform.airflow.trigger(SYNC)
    platform.session_of(f"{SYNC}/{run_id}")
    site.redis.kill()
    other = platform.airflow.trigger(OTHER_SYNC)
    time.sleep(6)
    platform.shop.set(latency_ms=0)
    site.redis.start()
    assert platform.airflow.wait(SYNC, run_id, timeout=120) == "success"
    assert platform.airflow.wait(OTHER_SYNC, other, timeout=120) == "success"
    assert platform.service.titles == []
