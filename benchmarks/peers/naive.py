"""Load by requests, the standard library's JSON and an upsert of each page by executemany."""

from collections.abc import Callable

import psycopg
import requests
from psycopg import sql


def load(start: Callable[[], None], *, url: str, token: str, warehouse: str, columns: list[str]) -> int:
    """Load all line items into a new table `naive`; returns its rows. The first of `columns` is the key."""
    names = [sql.Identifier(name) for name in columns]
    upsert = sql.SQL("INSERT INTO naive ({}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET ({}) = ROW({})").format(
        sql.SQL(", ").join(names),
        sql.SQL(", ").join(sql.Placeholder(name) for name in columns),
        names[0],
        sql.SQL(", ").join(names[1:]),
        sql.SQL(", ").join(sql.SQL("excluded.{}").format(name) for name in names[1:]),
    )
    with psycopg.connect(warehouse, autocommit=True) as conn, requests.Session() as session:
        conn.execute(
            sql.SQL("CREATE TABLE naive AS SELECT {} FROM repairshopr.line_items LIMIT 0").format(
                sql.SQL(", ").join(names)
            )
        )
        conn.execute(sql.SQL("ALTER TABLE naive ADD PRIMARY KEY ({})").format(names[0]))
        session.headers["Authorization"] = f"Bearer {token}"
        start()
        page, last = 1, 1
        while page <= last:
            answer = session.get(f"{url}/api/v1/line_items", params={"page": page}, timeout=60).json()
            with conn.transaction():
                conn.cursor().executemany(upsert, [blank_as_null(row) for row in answer["line_items"]])
            page, last = page + 1, answer["meta"]["total_pages"]
        return conn.execute("SELECT count(*) FROM naive").fetchone()[0]


def blank_as_null(row: dict) -> dict:
    """Return the row with null for each empty text, as the vendor sends one for what has no value."""
    return {name: None if value == "" else value for name, value in row.items()}
