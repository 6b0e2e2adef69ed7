"""Whether this machine's part of Airflow is alive: `python -m stack.alive dag-processor | triggerer | worker`.

For health checks. `airflow jobs check` and `celery inspect` answer the same, but load all of Airflow first, which takes
seconds of a core each time.
"""

import os
import socket
import sys
from collections.abc import Mapping

import psycopg

from stack.prepare import metadata_url, setting

# The parts that note a heartbeat in the metadata, every few seconds.
JOBS = {"dag-processor": "DagProcessorJob", "triggerer": "TriggererJob"}
SILENT_SECONDS = 60
PING_SECONDS = 10


def has_heartbeat(url: str, job: str, hostname: str) -> bool:
    """Return whether the job on that machine has noted a heartbeat in the metadata database at `url` lately."""
    query = (
        "SELECT EXISTS (SELECT FROM job WHERE job_type = %s AND hostname = %s AND state = 'running'"
        " AND latest_heartbeat > now() - %s * interval '1 s')"
    )
    with psycopg.connect(url, connect_timeout=10) as conn:
        return conn.execute(query, [job, hostname, SILENT_SECONDS]).fetchone()[0]


def answers(broker: str, hostname: str) -> bool:
    """Return whether the Celery worker on that machine answers over the broker."""
    from celery import Celery

    name = f"celery@{hostname}"
    return bool(Celery(broker=broker).control.ping([name], timeout=PING_SECONDS, limit=1))


def is_alive(part: str, environment: Mapping[str, str], hostname: str) -> bool:
    """Return whether the part runs on the machine `hostname`."""
    if part == "worker":
        return answers(setting(environment, "AIRFLOW__CELERY__BROKER_URL"), hostname)
    return has_heartbeat(metadata_url(environment), JOBS[part], hostname)


if __name__ == "__main__":
    sys.exit(not is_alive(sys.argv[1], os.environ, socket.gethostname()))
