"""What storage's scenario breaks, and that it leaves the bucket whole however it ends."""

import io
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from rich.console import Console

from include.api.errors import FixConfiguration
from include.simulators.storage import Store, application, rclone
from stack.demo import storage as scenario
from stack.demo.steps import expect
from stack.guardian import StackError
from stack.postgres import Server
from stack.settings import BUCKET, RCLONE, SIMULATOR_KEYS
from tests import photos as photo_accounts
from tests.photos import Photos

IMAGES = 400


class Switch:
    """Of Airflow's, the one call that puts things right at the end."""

    def delete_variable(self, key: str) -> None:
        self.deleted = key


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A real store over a folder."""
    with rclone(tmp_path / "objects", BUCKET, application.keys(IMAGES), *SIMULATOR_KEYS, RCLONE) as running:
        yield running


@pytest.fixture
def images(postgres: Server, warehouse_url: str) -> Iterator[psycopg.Connection]:
    """The application's database, filled."""
    with psycopg.connect(warehouse_url, autocommit=True) as connection:
        application.create(connection)
        application.fill(connection, IMAGES, bucket=BUCKET, endpoint="http://store.example:9000")
        yield connection


@pytest.fixture
def photos(conn: psycopg.Connection, images: psycopg.Connection, store: Store) -> Iterator[Photos]:
    """The source at work on them."""
    with photo_accounts.opened(conn, images, store) as opened:
        yield opened


@pytest.fixture
def demo(photos: Photos, tmp_path: Path) -> Iterator[scenario.StorageDemo]:
    """The scenario's demo, of whose Airflow there is the switch."""
    folders = {"bucket": tmp_path / "objects" / BUCKET, "copies": tmp_path / "copies"}
    client = scenario.client(photos.store.url)
    yield scenario.StorageDemo(
        "storage", Switch(), photos.conn, Console(file=io.StringIO()), photos.images, client, **folders
    )
    client.close()


def test_a_scan_finds_just_what_the_demo_says_it_broke(photos: Photos, demo: scenario.StorageDemo):
    before, in_step = demo.rows(), photos.scan().metrics
    drift = scenario.lose_objects(demo)
    summary = photos.scan()
    more = {"in_processing": scenario.BUSY_ORIGINALS, "missing_lately": len(drift.suspects)}
    expect("metrics", summary.metrics, in_step | drift.figures | more)
    assert scenario.planned(demo) == drift.marks
    assert summary.plan.update == len(drift.marks) == scenario.LOST_ORIGINALS + scenario.LOST_STAGED
    assert scenario.changed(demo, before) == set()


def test_what_was_taken_out_is_put_back_also_by_a_later_demo(photos: Photos, demo: scenario.StorageDemo):
    keys, in_step = demo.keys(), photos.scan().metrics
    drift = scenario.lose_objects(demo)
    assert demo.keys() == keys - {*drift.keys} | {scenario.ORPHAN}
    demo.bucket.rename(demo.renamed)
    scenario.restore(demo)
    assert demo.keys() == keys
    assert photos.scan().metrics == in_step
    assert demo.airflow.deleted == scenario.SWITCH
    assert demo.put_back() == 0


def test_a_bucket_that_a_restarted_store_has_made_anew_gives_way_to_the_old_one(demo: scenario.StorageDemo):
    demo.bucket.rename(demo.renamed)
    (demo.bucket / "uploads").mkdir(parents=True)
    demo.name_bucket_again()
    assert not demo.renamed.exists()
    assert any(demo.bucket.rglob("*.jpg"))


def test_a_renamed_bucket_is_not_found(photos: Photos, demo: scenario.StorageDemo):
    demo.bucket.rename(demo.renamed)
    with pytest.raises(FixConfiguration, match="the bucket does not exist there"):
        photos.scan()


def test_every_column_of_an_image_counts_as_a_change(demo: scenario.StorageDemo):
    before = demo.rows()
    image, other = sorted(before)[:2]
    demo.images.execute("UPDATE images SET prompt = 'dark' WHERE id = %s", [image])
    demo.images.execute("DELETE FROM images WHERE id = %s", [other])
    assert scenario.changed(demo, before) == {image, other}


def test_a_store_without_its_folder_is_refused(tmp_path: Path):
    class Elsewhere:
        home = type("Home", (), {"folder": tmp_path})

    with pytest.raises(StackError, match="unset STACK_STORAGE_OPTIONS"), scenario.opened(None, Elsewhere):
        pass
