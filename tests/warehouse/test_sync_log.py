"""The log of syncs, and how far each entity is in step."""

from include.warehouse import sync_log
from include.warehouse.merge import Merged
from include.warehouse.sync_log import Counts, State
from tests.warehouse.shop import PARTS, SOURCE, count, day, expire_log, part, synced


def log(conn, sync_id, *columns):
    row = conn.execute("SELECT to_jsonb(l) FROM confidence.sync_log l WHERE sync_id = %s", [sync_id]).fetchone()[0]
    return tuple(row[column] for column in columns)


def test_counts_add_up_over_entities(conn):
    sync_id = sync_log.begin(conn, SOURCE, "sync", "shop_sync/1")
    assert log(conn, sync_id, "state", "finished_at", "run") == ("running", None, "shop_sync/1")
    parts = Counts.of(Merged(inserted=1, updated=2, deleted=3, superseded=4), read=20, unchanged=5, failed=6)
    sync_log.finish(conn, sync_id, {"parts": parts, "stock": Counts(read=1, inserted=1)})
    figures = ("read", "inserted", "updated", "deleted", "unchanged", "superseded", "failed")
    assert log(conn, sync_id, *(f"rows_{figure}" for figure in figures)) == (21, 2, 2, 3, 5, 4, 6)
    (entities, state) = log(conn, sync_id, "entities", "state")
    assert entities["stock"]["inserted"] == 1
    assert entities["parts"]["superseded"] == 4
    assert state == "success"
    assert log(conn, sync_id, "duration_seconds")[0] >= 0


def test_what_a_dead_attempt_left_open_is_closed(conn):
    dead = sync_log.begin(conn, SOURCE, "sync", "shop_sync/1")
    other_kind = sync_log.begin(conn, SOURCE, "repair", "shop_reconcile/1")
    other_source = sync_log.begin(conn, "repairshopr", "sync", "repairshopr_sync/1")
    sync_log.begin(conn, SOURCE, "sync", "shop_sync/1")
    assert log(conn, dead, "state") == ("failed",)
    assert "ended without closing this row" in log(conn, dead, "error")[0]
    assert log(conn, other_kind, "state") == log(conn, other_source, "state") == ("running",)


def test_failure_keeps_its_reason(conn):
    sync_id = sync_log.begin(conn, SOURCE, "sync", "shop_sync/1")
    sync_log.finish(conn, sync_id, {}, error=RuntimeError("the vendor is down"))
    assert log(conn, sync_id, "state", "error", "rows_read") == ("failed", "the vendor is down", 0)


def test_has_never_synced_until_a_sync_of_its_own_has_brought_something(conn):
    other = sync_log.begin(conn, "repairshopr", "sync", "repairshopr_sync/1")
    sync_log.finish(conn, other, {})
    failed = sync_log.begin(conn, SOURCE, "sync", "shop_sync/1")
    sync_log.finish(conn, failed, {}, error=RuntimeError("the vendor is down"))
    sync_log.finish(conn, sync_log.begin(conn, SOURCE, "repair", "shop_reconcile/1"), {})
    assert not sync_log.ever_synced(conn, SOURCE)
    sync_log.finish(conn, sync_log.begin(conn, SOURCE, "sync", "shop_sync/2"), {})
    assert sync_log.ever_synced(conn, SOURCE)


def test_has_synced_if_one_of_its_entities_is_in_step(conn):
    sync_id = sync_log.begin(conn, SOURCE, "sync", "shop_sync/1")
    sync_log.advance(conn, sync_id, "repairshopr", "parts", watermark=day(1))
    assert not sync_log.ever_synced(conn, SOURCE)
    sync_log.advance(conn, sync_id, SOURCE, "parts", watermark=day(1))
    assert sync_log.ever_synced(conn, SOURCE)


def test_requests_are_kept_with_those_that_failed(conn):
    sync_id = sync_log.begin(conn, SOURCE, "sync", "shop_sync/1")
    assert log(conn, sync_id, "requests", "request_errors") == (0, 0)
    sync_log.finish(conn, sync_id, {}, requests=7, request_errors=2)
    assert log(conn, sync_id, "requests", "request_errors") == (7, 2)


def test_state_is_empty_before_the_first_sync(conn):
    assert sync_log.state(conn, SOURCE, "parts") == State()


def test_state_moves_per_entity_and_partition(conn):
    sync_id = sync_log.begin(conn, SOURCE, "sync", "shop_sync/1")
    for number, partition in enumerate(("", "east", "west")):
        sync_log.advance(
            conn,
            sync_id,
            SOURCE,
            "parts",
            watermark=day(number),
            version=number,
            counts=Counts(read=number),
            partition=partition,
        )
    found = sync_log.state(conn, SOURCE, "parts", "east")
    assert (found.watermark, found.version, found.counts["read"], found.sync_id) == (day(1), 1, 1, sync_id)
    assert sync_log.state(conn, SOURCE, "parts").watermark == day(0)


def test_first_state_that_a_sync_found_is_the_one_remembered(conn):
    first = sync_log.begin(conn, SOURCE, "sync", "shop_sync/1")
    sync_log.advance(conn, first, SOURCE, "parts", watermark=day(1))
    second = sync_log.begin(conn, SOURCE, "sync", "shop_sync/2")
    for number in (2, 3):
        sync_log.advance(conn, second, SOURCE, "parts", watermark=day(number))
    assert log(conn, first, "state_before") == ({"parts/": None},)
    assert log(conn, second, "state_before")[0]["parts/"]["watermark"] == day(1).isoformat()


def test_what_nobody_asks_for_any_more_is_forgotten_and_remembered_by_the_sync(conn):
    first = sync_log.begin(conn, SOURCE, "sync", "shop_sync/1")
    others = [(SOURCE, "parts", "west"), (SOURCE, "stock", "east"), ("repairshopr", "parts", "east")]
    for source, entity, partition in [(SOURCE, "parts", "east"), (SOURCE, "stock", ""), *others]:
        sync_log.advance(conn, first, source, entity, watermark=day(1), partition=partition)
    second = sync_log.begin(conn, SOURCE, "sync", "shop_sync/2")
    sync_log.forget(conn, second, SOURCE, [("parts", "east"), ("stock", "")])
    kept = conn.execute("SELECT source, entity, partition FROM confidence.sync_state").fetchall()
    assert sorted(kept) == sorted(others)
    (before,) = log(conn, second, "state_before")
    assert {name: state["watermark"] for name, state in before.items()} == dict.fromkeys(
        ["parts/east", "stock/"], day(1).isoformat()
    )


def test_what_ended_long_ago_expires_but_what_states_and_rollbacks_stand_on(conn):
    undone, old, present, young = (synced(conn, PARTS, [part(1, f"name {n}", changed=n)], day(n)) for n in range(4))
    undo = sync_log.begin(conn, SOURCE, "rollback", "t/1", undoes=undone.sync_id)
    sync_log.finish(conn, undo, {})
    conn.execute("UPDATE confidence.sync_state SET sync_id = %s", [present.sync_id])
    ended = "UPDATE confidence.sync_log SET finished_at = now() - make_interval(days => %s) WHERE sync_id = ANY (%s)"
    conn.execute(ended, [31, [undone.sync_id, old.sync_id, present.sync_id]])
    conn.execute(ended, [29, [young.sync_id]])
    assert expire_log(conn, 30) == 1
    kept = {sync_id for (sync_id,) in conn.execute("SELECT sync_id FROM confidence.sync_log")}
    assert kept == {undone.sync_id, present.sync_id, young.sync_id, undo}
    audited = {sync_id for (sync_id,) in conn.execute("SELECT DISTINCT sync_id FROM confidence.change_log")}
    assert audited == kept - {undo}
    assert count(conn, "shop.parts") == 1
