"""Load by a Singer tap and target: a process that writes records as JSON lines, piped into one that copies them.

`python -m benchmarks.peers.singer tap URL TOKEN | python -m benchmarks.peers.singer target CONNINFO` is what is
measured. Both are as plain as the specification allows: the target checks no record against the schema, and copies a
batch into a temporary table before its upsert.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from subprocess import PIPE
from typing import Any

import psycopg
import requests
from psycopg import sql

from benchmarks.peers.naive import blank_as_null

MODULE = [sys.executable, "-m", "benchmarks.peers.singer"]
STREAM, KEY = "line_items", "id"
# Records of a batch, as targets usually have it.
BATCH = 10_000
# The types of Postgres by JSON's, as a target maps them.
TYPES = {"integer": "bigint", "number": "numeric", "boolean": "boolean", "string": "text"}
KINDS = {int: "integer", float: "number", bool: "boolean"}


def load(start: Callable[[], None], *, url: str, token: str, warehouse: str) -> int:
    """Load all line items into a new table `singer`; returns its rows."""
    with psycopg.connect(warehouse, autocommit=True) as conn:
        start()
        with (
            subprocess.Popen([*MODULE, "tap", url, token], stdout=PIPE) as tap,
            subprocess.Popen([*MODULE, "target", warehouse], stdin=tap.stdout) as target,
        ):
            tap.stdout.close()
        if tap.returncode or target.returncode:
            raise RuntimeError(f"the tap ended with code {tap.returncode}, the target with {target.returncode}")
        return conn.execute("SELECT count(*) FROM singer").fetchone()[0]


def messages(pages: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the tap's messages for the pages of a list: the schema, then each page's records and its state."""
    for number, page in enumerate(pages, 1):
        if number == 1:
            columns = {name: {"type": ["null", _kind(page[STREAM], name)]} for name in page[STREAM][0]}
            yield {"type": "SCHEMA", "stream": STREAM, "key_properties": [KEY], "schema": {"properties": columns}}
        for record in page[STREAM]:
            yield {"type": "RECORD", "stream": STREAM, "record": record}
        yield {"type": "STATE", "value": {STREAM: {"page": number}}}


def _kind(rows: Iterable[Mapping[str, Any]], name: str) -> str:
    found = {KINDS.get(type(row[name]), "string") for row in rows if row[name] is not None}
    return found.pop() if len(found) == 1 else "string"


def _tap(url: str, token: str) -> None:
    for message in messages(_pages(url, token)):
        print(json.dumps(message))


def _pages(url: str, token: str) -> Iterator[Mapping[str, Any]]:
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {token}"
        page, last = 1, 1
        while page <= last:
            answer = session.get(f"{url}/api/v1/{STREAM}", params={"page": page}, timeout=60).json()
            yield answer | {STREAM: [blank_as_null(row) for row in answer[STREAM]]}
            page, last = page + 1, answer["meta"]["total_pages"]


def _target(conninfo: str) -> None:
    """Write what comes on stdin; the last state is told on stdout, once all records are written."""
    batch: list[dict[str, Any]] = []
    state: Any = None
    with psycopg.connect(conninfo, autocommit=True) as conn:
        for line in sys.stdin:
            message = json.loads(line)
            match message["type"]:
                case "SCHEMA":
                    columns = _create(conn, message["schema"]["properties"])
                case "RECORD":
                    batch.append(message["record"])
                case "STATE":
                    state = message["value"]
            if len(batch) >= BATCH:
                _write(conn, columns, batch)
                batch = []
        if batch:
            _write(conn, columns, batch)
        print(json.dumps(state))


def _create(conn: psycopg.Connection, properties: Mapping[str, Any]) -> list[str]:
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(TYPES[each["type"][-1]]))
        for name, each in properties.items()
    ]
    conn.execute(
        sql.SQL("CREATE TABLE singer ({}, PRIMARY KEY ({}))").format(sql.SQL(", ").join(columns), sql.Identifier(KEY))
    )
    conn.execute("CREATE TEMP TABLE batch (LIKE singer)")
    return list(properties)


def _write(conn: psycopg.Connection, columns: list[str], batch: list[dict[str, Any]]) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    values = sql.SQL(", ").join(sql.SQL("excluded.{}").format(sql.Identifier(name)) for name in columns)
    upsert = sql.SQL("INSERT INTO singer SELECT * FROM batch ON CONFLICT ({}) DO UPDATE SET ({}) = ROW({})")
    with conn.transaction(), conn.cursor() as cursor:
        with cursor.copy("COPY batch FROM STDIN") as copy:
            for record in batch:
                copy.write_row([record[name] for name in columns])
        cursor.execute(upsert.format(sql.Identifier(KEY), names, values))
        cursor.execute("TRUNCATE batch")


if __name__ == "__main__":
    {"tap": _tap, "target": _target}[sys.argv[1]](*sys.argv[2:])
