"""What storage's act breaks, and that it leaves the bucket whole however it ends."""

import io
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from rich.console import Console

from include.api.errors import FixConfiguration
from include.simulators.storage import Store, application, rclone
from stack.demo import storage as act
from stack.demo.steps import expect
from stack.guardian import StackError
from stack.postgres import Server
from stack.settings import BUCKET, RCLONE, SIMULATOR_KEYS
from tests import photos as photo_accounts
from tests.photos import StorageDemo

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
def photos(conn: psycopg.Connection, images: psycopg.Connection, store: Store) -> Iterator[StorageDemo]:
    """The source at work on them."""
    with photo_accounts.opened(conn, images, store) as opened:
        yield opened


@pytest.fixture
def platform(photos: StorageDemo, tmp_path: Path) -> Iterator[act.StorageDemo]:
    """The act's platform, of whose Airflow there is the switch."""
    folders = {"bucket": tmp_path / "objects" / BUCKET, "copies": tmp_path / "copies"}
    client = act.client(photos.store.url)
    yield act.StorageDemo(
        "storage", Switch(), photos.conn, Console(file=io.StringIO()), photos.images, client, **folders
    )
    client.close()


def test_a_scan_finds_just_what_the_demo_says_it_broke(photos: StorageDemo, platform: act.StorageDemo):
    before, in_step = platform.rows(), photos.scan().metrics
    drift = act.lose_objects(platform)
    summary = photos.scan()
    more = {"in_processing": act.BUSY_ORIGINALS, "missing_lately": len(drift.suspects)}
    expect("metrics", summary.metrics, in_step | drift.figures | more)
    assert act.planned(platform) == drift.marks
    assert summary.plan.update == len(drift.marks) == act.LOST_ORIGINALS + act.LOST_STAGED
    assert act.changed(platform, before) == set()


def test_what_was_taken_out_is_put_back_also_by_a_later_demo(photos: StorageDemo, platform: act.StorageDemo):
    keys, in_step = platform.keys(), photos.scan().metrics
    drift = act.lose_objects(platform)
    assert platform.keys() == keys - {*drift.keys} | {act.ORPHAN}
    platform.bucket.rename(platform.renamed)
    act.restore(platform)
    assert platform.keys() == keys
    assert photos.scan().metrics == in_step
    assert platform.airflow.deleted == act.SWITCH
    assert platform.put_back() == 0


def test_a_bucket_that_a_restarted_store_has_made_anew_gives_way_to_the_old_one(platform: act.StorageDemo):
    platform.bucket.rename(platform.renamed)
    (platform.bucket / "uploads").mkdir(parents=True)
    platform.name_bucket_again()
    assert not platform.renamed.exists()
    assert any(platform.bucket.rglob("*.jpg"))


def test_a_renamed_bucket_is_not_found(photos: StorageDemo, platform: act.StorageDemo):
    platform.bucket.rename(platform.renamed)
    with pytest.raises(FixConfiguration, match="the bucket does not exist there"):
        photos.scan()


def test_every_column_of_an_image_counts_as_a_change(platform: act.StorageDemo):
    before = platform.rows()
    image, other = sorted(before)[:2]
    platform.images.execute("UPDATE images SET prompt = 'dark' WHERE id = %s", [image])
    platform.images.execute("DELETE FROM images WHERE id = %s", [other])
    assert act.changed(platform, before) == {image, other}


def test_a_store_without_its_folder_is_refused(tmp_path: Path):
    class Elsewhere:
        home = type("Home", (), {"folder": tmp_path})

    with pytest.raises(StackError, match="unset STACK_STORAGE_OPTIONS"), act.opened(None, Elsewhere):
        pass
