"""Storage's scenario: an application's images against a bucket. Missing images are marked, unknown ones left alone."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import boto3
import psycopg
from botocore.client import BaseClient
from botocore.config import Config

from include.simulators.storage.invented import staged_key
from stack.control import Stack
from stack.demo.steps import ROLLBACK, Demo, expect, some
from stack.guardian import StackError
from stack.settings import BUCKET, SIMULATOR_KEYS

SWITCH = "RECONCILE_ENABLED"
ORIGINAL_MISSING, STAGED_MISSING = "original missing in storage", "staged missing in storage"
ORPHAN = "uploads/demo/what-nobody-names.jpg"

# Few enough to pass the gate: it holds above 5 % of the images, and a trend above 25.
LOST_ORIGINALS, BUSY_ORIGINALS, LOST_STAGED = 7, 2, 5
SHOWN_ROWS = 6
# Of the examples in a result.
EXAMPLES = 10

FIGURES = {
    "checked": "images that are not deleted",
    "missing_original": "their original is proven to be gone",
    "missing_staged": "ready, and the staged object is proven to be gone",
    "unknown": "could not be looked at",
    "foreign_bucket": "their url names another bucket",
    "ready_without_staged": "ready, and without a staged url",
    "orphan_objects": "objects that no image names",
    "updated": "images that were marked",
    "healed": "images that got their former status back",
}

PLANNED = """
SELECT key ->> 'id', after ->> 'error' FROM confidence.planned_change WHERE status = 'confirmed' AND evidence =
  (SELECT evidence FROM confidence.planned_change WHERE source = %s ORDER BY change_id DESC LIMIT 1)
"""


@dataclass(frozen=True)
class StorageDemo(Demo):
    """The stack with the application's images (autocommit) and their store.

    `bucket`: the folder in which the store keeps the objects. `copies`: the folder for those that the demo takes out;
    they outlive it, whatever ends it.
    """

    images: psycopg.Connection
    store: BaseClient
    bucket: Path
    copies: Path

    @property
    def renamed(self) -> Path:
        """Where the bucket's folder is while there is no bucket of that name."""
        return self.bucket.with_name(f"{self.bucket.name}-renamed")

    def keys(self) -> set[str]:
        pages = self.store.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return {found["Key"] for page in pages for found in page.get("Contents", [])}

    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """Every image with all its columns, by its id."""
        return dict(self.images.execute("SELECT id::text, to_jsonb(i) FROM images i").fetchall())

    def states(self, *ids: str) -> Mapping[str, tuple[str, str | None]]:
        """Status and error of images."""
        query = "SELECT id::text, status::text, error FROM images WHERE id = ANY (%s::uuid[]) ORDER BY id"
        return {id_: (status, error) for id_, status, error in self.images.execute(query, [list(ids)])}

    def result(self, run_id: str) -> Mapping[str, Any]:
        return self.airflow.xcom(self.reconcile, run_id, "report", "result")

    def take_out(self, key: str) -> None:
        """Delete an object, after keeping a copy."""
        copy = self.copies / key
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(self.store.get_object(Bucket=BUCKET, Key=key)["Body"].read())
        self.store.delete_object(Bucket=BUCKET, Key=key)

    def put_back(self) -> int:
        """Return all that was taken out to the store, and take away what nobody names; returns how many came back."""
        self.store.delete_object(Bucket=BUCKET, Key=ORPHAN)
        copies = [path for path in self.copies.rglob("*") if path.is_file()]
        for copy in copies:
            key = copy.relative_to(self.copies).as_posix()
            self.store.put_object(Bucket=BUCKET, Key=key, Body=copy.read_bytes())
        shutil.rmtree(self.copies, ignore_errors=True)
        return len(copies)

    def name_bucket_again(self) -> None:
        if self.renamed.exists():
            # A store that was started meanwhile has made a new one.
            shutil.rmtree(self.bucket, ignore_errors=True)
            self.renamed.rename(self.bucket)


@dataclass(frozen=True)
class Drift:
    """What was broken on purpose, each an image's id with the key of the object that was deleted; and an orphan.

    `originals` and `busy`, whose images a worker is processing, were originals, `staged` are staged objects.
    """

    originals: Mapping[str, str]
    busy: Mapping[str, str]
    staged: Mapping[str, str]

    @property
    def marks(self) -> Mapping[str, str]:
        """The error that each image is to get; none for those that a worker is at."""
        return dict.fromkeys(self.originals, ORIGINAL_MISSING) | dict.fromkeys(self.staged, STAGED_MISSING)

    @property
    def suspects(self) -> Mapping[str, str]:
        """The error that belongs to each image whose object is missing."""
        return self.marks | dict.fromkeys(self.busy, ORIGINAL_MISSING)

    @property
    def keys(self) -> list[str]:
        return [*self.originals.values(), *self.busy.values(), *self.staged.values()]

    @property
    def figures(self) -> Mapping[str, int]:
        """What a run has to say of it."""
        return {
            "missing_original": len(self.originals) + len(self.busy),
            "missing_staged": len(self.staged),
            "orphan_objects": 1,
        }


def play(demo: Demo, stack: Stack) -> None:
    """Play the scenario, step by step. Raises Unexpected at the first outcome that is not as it should be.

    However it ends, the bucket is whole again and the switch is off.
    """
    with opened(demo, stack) as photos:
        begin(photos)
        try:
            in_step = look_in_step(photos)
            before = photos.rows()
            drift = lose(photos)
            scan(photos, drift, in_step, before)
            refuse(photos, before)
            sync_id = mark(photos, drift, before)
            lose_sight(photos)
            undo(photos, drift, sync_id, before)
        finally:
            restore(photos)


@contextmanager
def opened(demo: Demo, stack: Stack) -> Iterator[StorageDemo]:
    """The scenario's demo. Raises StackError where the store keeps its objects elsewhere."""
    folder = stack.home.folder / "objects"
    if not folder.is_dir():
        raise StackError(
            f"the demo needs a store that keeps its objects in {folder}: unset STACK_STORAGE_OPTIONS, end the stack and"
            " start the demo again"
        )
    store = client(stack.simulator_urls[demo.source])
    parts = {"bucket": folder / BUCKET, "copies": stack.home.folder / "objects-of-the-demo"}
    with closing(psycopg.connect(stack.env["AIRFLOW_CONN_IMAGES_DB"], autocommit=True)) as images, closing(store):
        yield StorageDemo(**vars(demo), images=images, store=store, **parts)


def client(url: str) -> BaseClient:
    """The S3 API of the store at a URL, with the demo's keys."""
    access_key, secret_key = SIMULATOR_KEYS
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=Config(s3={"addressing_style": "path"}),
    )


def begin(demo: StorageDemo) -> None:
    """Let scheduled runs end and put right what an earlier demo left, so that nothing else is running."""
    demo.screen.rule("Storage 1  Start with nothing running")
    restore(demo)
    demo.end_questions()
    demo.end_syncs()


def look_in_step(demo: StorageDemo) -> Mapping[str, int]:
    """A forensic run of images and bucket in step; returns its figures."""
    demo.screen.rule("Storage 2  A forensic run: every image against the bucket")
    run_id = demo.run(demo.reconcile, dry_run=True)
    found = demo.result(run_id)
    _show_figures(demo, found)
    images = demo.images.execute(
        "SELECT count(*), count(*) FILTER (WHERE status = 'ready' AND staged_url IS NULL)"
        " FROM images WHERE deleted_at IS NULL"
    ).fetchone()
    in_step = dict.fromkeys(FIGURES, 0) | dict(zip(("checked", "ready_without_staged"), images, strict=True))
    expect("the result", found, in_step)
    demo.expect_skipped(run_id, "decide", "reconcile", "verify")
    demo.expect_writer_runs()
    return in_step


def lose(demo: StorageDemo) -> Drift:
    """Objects vanish from the store, and one appears that nobody names."""
    demo.screen.rule("Storage 3  Drift: objects vanish, the images know nothing of it")
    drift = lose_objects(demo)
    rows = [
        ("originals deleted", len(drift.originals), some(drift.originals)),
        ("originals deleted, in processing", len(drift.busy), some(drift.busy)),
        ("staged objects deleted", len(drift.staged), some(drift.staged)),
        ("objects put that no image names", 1, ORPHAN),
    ]
    demo.show(("in the bucket", "objects", "of the images, such as"), rows)
    return drift


def scan(demo: StorageDemo, drift: Drift, in_step: Mapping[str, int], before: Mapping[str, Any]) -> None:
    """A forensic run: every lost object is found, to the row, and nothing is written."""
    demo.screen.rule("Storage 4  A forensic run: find it, judge it, write nothing")
    run_id = demo.run(demo.reconcile, dry_run=True)
    found = demo.result(run_id)
    _show_figures(demo, found)
    expect("the result", found, in_step | drift.figures)
    examples = {example["image_id"]: example["error"] for example in found["examples"]}
    expect("the result's examples", examples, dict(sorted(drift.suspects.items())[:EXAMPLES]))
    plan = planned(demo)
    demo.say(f"planned: {len(plan)} images to mark; those in processing are left to their worker")
    expect("the images to mark", plan, drift.marks)
    expect("images changed by a dry run", changed(demo, before), set())
    demo.expect_skipped(run_id, "decide", "verify")


def refuse(demo: StorageDemo, before: Mapping[str, Any]) -> None:
    """While the switch is off no run may write, and says so before it does anything."""
    demo.screen.rule("Storage 5  dry_run off, and the switch off: refused at the start")
    demo.airflow.set_variable(SWITCH, "0")
    demo.fail_run(demo.reconcile, "stop_writer", "reconciliation is not enabled", dry_run=False)
    expect("images changed by a refused run", changed(demo, before), set())
    demo.expect_writer_runs()


def mark(demo: StorageDemo, drift: Drift, before: Mapping[str, Any]) -> int:
    """With the switch on, the images whose objects are missing are marked. Returns the sync_id."""
    demo.screen.rule(f"Storage 6  {SWITCH} = 1: the missing are marked")
    demo.airflow.set_variable(SWITCH, "1")
    run_id = demo.run(demo.reconcile, dry_run=False)
    sync_id = demo.airflow.xcom(demo.reconcile, run_id, "reconcile")["sync_id"]
    checks = demo.airflow.xcom(demo.reconcile, run_id, "verify")
    states = demo.states(*drift.marks)
    rows = [(id_, before[id_]["status"], *state) for id_, state in states.items()]
    demo.show((f"marked as sync_id {sync_id}", "was", "status", "error"), rows[:SHOWN_ROWS])
    demo.show(("verify", "before", "after"), [(c["figure"], c["before"], c["after"]) for c in checks])
    expect("the marked images", states, {id_: ("error", error) for id_, error in drift.marks.items()})
    expect("the images changed", changed(demo, before), set(drift.marks))
    expect("updated by the run", demo.result(run_id)["updated"], len(drift.marks))
    expect("what verify found", {check["after"] for check in checks}, {0})
    return sync_id


def lose_sight(demo: StorageDemo) -> None:
    """The bucket can't be found: every object would be missing, if unknown were absent."""
    demo.screen.rule("Storage 7  The bucket is renamed: unknown is never absent")
    before = demo.rows()
    demo.bucket.rename(demo.renamed)
    demo.fail_run(demo.reconcile, "scan", "the bucket does not exist there", dry_run=False)
    demo.name_bucket_again()
    demo.airflow.delete_variable(SWITCH)
    expect("images changed without sight of the bucket", changed(demo, before), set())
    demo.expect_writer_runs()
    demo.say(f"Not one of {len(before)} images was touched, and the writer runs. The bucket has its name again.")


def undo(demo: StorageDemo, drift: Drift, sync_id: int, before: Mapping[str, Any]) -> None:
    """The objects are found again, so the marks are rolled back: every image is exactly as it was."""
    demo.screen.rule("Storage 8  The objects come back: undo the marks")
    returned = demo.put_back()
    run_id = demo.run(ROLLBACK, sync_id=sync_id, dry_run=False, reason="the objects are back")
    undone = demo.airflow.xcom(ROLLBACK, run_id, "rollback")
    states = demo.states(*drift.marks)
    rows = [(id_, status, error or "") for id_, (status, error) in states.items()]
    demo.show((f"undone as sync_id {undone['sync_id']}", "status", "error"), rows[:SHOWN_ROWS])
    demo.say(f"{returned} objects are back, {undone['tables']['images']['updated']} images are exactly as before.")
    expect("objects put back", returned, len(drift.keys))
    expect("keys that the store still lacks", set(drift.keys) - demo.keys(), set())
    expect("images put back", undone["tables"]["images"]["updated"], len(drift.marks))
    expect("images that are not as before", changed(demo, before), set())


def restore(demo: StorageDemo) -> None:
    """The bucket has its name and all its objects, and the switch is off."""
    demo.name_bucket_again()
    demo.put_back()
    demo.airflow.delete_variable(SWITCH)


def lose_objects(demo: StorageDemo) -> Drift:
    """Delete the objects of some images, others each time, and put an object that no image names."""
    keys = demo.keys()
    originals = _pick(demo, keys, LOST_ORIGINALS, ("queued", "ready"))
    busy = _pick(demo, keys, BUSY_ORIGINALS, ("processing",))
    staged = _pick_staged(demo, LOST_STAGED, not_of=originals)
    drift = Drift(originals, busy, staged)
    for key in drift.keys:
        demo.take_out(key)
    demo.store.put_object(Bucket=BUCKET, Key=ORPHAN, Body=b"picture")
    return drift


def planned(demo: StorageDemo) -> Mapping[str, str]:
    """The error that the last scan has planned for each image."""
    return dict(demo.warehouse.execute(PLANNED, [demo.source]).fetchall())


def changed(demo: StorageDemo, before: Mapping[str, Any]) -> set[str]:
    """The ids of images that are not, in every column, as they were."""
    now = demo.rows()
    return {id_ for id_ in before.keys() | now.keys() if before.get(id_) != now.get(id_)}


def _pick(demo: StorageDemo, keys: set[str], number: int, statuses: tuple[str, ...]) -> dict[str, str]:
    """Images of their own original by chance, with its key, whatever form their url has."""
    rows = demo.images.execute(
        "SELECT id::text, original_url FROM images WHERE status::text = ANY (%s) AND deleted_at IS NULL"
        " AND original_url IS NOT NULL ORDER BY random()",
        [list(statuses)],
    )
    found = {id_: "uploads/" + unquote(urlsplit(url).path).partition("/uploads/")[2] for id_, url in rows}
    there = [(id_, key) for id_, key in found.items() if key in keys][:number]
    expect("originals to choose from", len(there), number)
    return dict(there)


def _pick_staged(demo: StorageDemo, number: int, not_of: Mapping[str, str]) -> dict[str, str]:
    rows = demo.images.execute(
        "SELECT id::text FROM images WHERE status = 'ready' AND deleted_at IS NULL AND staged_url IS NOT NULL"
        " AND id <> ALL (%s::uuid[]) ORDER BY random() LIMIT %s",
        [list(not_of), number],
    ).fetchall()
    expect("staged objects to choose from", len(rows), number)
    return {id_: staged_key(id_) for (id_,) in rows}


def _show_figures(demo: StorageDemo, found: Mapping[str, Any]) -> None:
    rows = [(name, found[name], meaning) for name, meaning in FIGURES.items()]
    demo.show(("result", "number", "meaning"), rows)
