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
from stack.demo.house import expect
from stack.guardian import StackError
from stack.postgres import Server
from stack.settings import BUCKET, RCLONE, SIMULATOR_KEYS
from tests import gallery as galleries
from tests.gallery import Gallery

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
def gallery(conn: psycopg.Connection, images: psycopg.Connection, store: Store) -> Iterator[Gallery]:
    """The source at work on them."""
    with galleries.opened(conn, images, store) as opened:
        yield opened


@pytest.fixture
def house(gallery: Gallery, tmp_path: Path) -> Iterator[act.Gallery]:
    """The act's house, of whose Airflow there is the switch."""
    folders = {"bucket": tmp_path / "objects" / BUCKET, "copies": tmp_path / "copies"}
    client = act.client(gallery.store.url)
    yield act.Gallery("storage", Switch(), gallery.conn, Console(file=io.StringIO()), gallery.images, client, **folders)
    client.close()


def test_a_scan_finds_just_what_the_demo_says_it_broke(gallery: Gallery, house: act.Gallery):
    before, in_step = house.rows(), gallery.scan().metrics
    drift = act.lose_objects(house)
    summary = gallery.scan()
    more = {"in_processing": act.BUSY_ORIGINALS, "missing_lately": len(drift.suspects)}
    expect("metrics", summary.metrics, in_step | drift.figures | more)
    assert act.planned(house) == drift.marks
    assert summary.plan.update == len(drift.marks) == act.LOST_ORIGINALS + act.LOST_STAGED
    assert act.changed(house, before) == set()


def test_what_was_taken_out_is_put_back_also_by_a_later_demo(gallery: Gallery, house: act.Gallery):
    keys, in_step = house.keys(), gallery.scan().metrics
    drift = act.lose_objects(house)
    assert house.keys() == keys - {*drift.keys} | {act.ORPHAN}
    house.bucket.rename(house.renamed)
    act.restore(house)
    assert house.keys() == keys
    assert gallery.scan().metrics == in_step
    assert house.airflow.deleted == act.SWITCH
    assert house.put_back() == 0


def test_a_bucket_that_a_restarted_store_has_made_anew_gives_way_to_the_old_one(house: act.Gallery):
    house.bucket.rename(house.renamed)
    (house.bucket / "uploads").mkdir(parents=True)
    house.name_bucket_again()
    assert not house.renamed.exists()
    assert any(house.bucket.rglob("*.jpg"))


def test_a_renamed_bucket_is_not_found(gallery: Gallery, house: act.Gallery):
    house.bucket.rename(house.renamed)
    with pytest.raises(FixConfiguration, match="the bucket does not exist there"):
        gallery.scan()


def test_every_column_of_an_image_counts_as_a_change(house: act.Gallery):
    before = house.rows()
    image, other = sorted(before)[:2]
    house.images.execute("UPDATE images SET prompt = 'dark' WHERE id = %s", [image])
    house.images.execute("DELETE FROM images WHERE id = %s", [other])
    assert act.changed(house, before) == {image, other}


def test_a_store_without_its_folder_is_refused(tmp_path: Path):
    class Elsewhere:
        home = type("Home", (), {"folder": tmp_path})

    with pytest.raises(StackError, match="unset STACK_STORAGE_OPTIONS"), act.opened(None, Elsewhere):
        pass
