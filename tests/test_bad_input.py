"""Whatever goes wrong: a message with what, how many, where and what next; nothing half-published; reruns succeed."""

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from received import DAY, RAW_USER, an_event, csv_text, dump, manifest, write_file

from intent_platform import daily, db
from intent_platform.db import embedded
from intent_platform.errors import (
    CatalogueInvalid,
    DatabaseUnavailable,
    DayRefused,
    EncoderMissing,
    FileUnreadable,
    LakeUnavailable,
    MappingDoesNotFit,
    MappingInvalid,
    ReleaseInvalid,
)
from intent_platform.events import validation
from intent_platform.index import item_index
from intent_platform.keys import create_missing_keys
from intent_platform.lake import Lake
from intent_platform.model import behaviour, parts
from intent_platform.settings import Settings

GOOD = [an_event(number) for number in range(20)]


@pytest.fixture
def shop(settings):
    """A shop whose day is published, with text by n-grams alone: the encoder takes seconds to load."""
    settings = replace(settings, encoder="none")
    create_missing_keys(settings)
    return settings


@contextmanager
def nothing_published(settings, *, but: tuple[str, ...] = ()) -> Iterator[None]:
    """The manifest and every row of every table are afterwards what they were before."""
    tables, published = dump(settings), manifest(settings)
    yield
    assert manifest(settings) == published
    assert {name: rows for name, rows in dump(settings).items() if name not in but} == {
        name: rows for name, rows in tables.items() if name not in but
    }


def packed(folder: Path, ending: str) -> bytes:
    path = write_file(folder, f"whole.csv{ending}", [an_event(number, brand=uuid.uuid4().hex) for number in range(500)])
    return path.read_bytes()


BAD_FILES = {
    "empty": ("events.csv", lambda _: b"", FileUnreadable, r"holds no rows.*fetch it again"),
    "only a header": ("events.csv", lambda _: csv_text([]).encode(), FileUnreadable, r"holds no rows"),
    "binary junk": (
        "events.csv",
        lambda _: np.random.default_rng(1).bytes(100_000),
        MappingDoesNotFit,
        r"needs columns 'anonymous_id'.*withheld",
    ),
    "cut gzip": (
        "events.csv.gz",
        lambda folder: packed(folder, ".gz")[:-200],
        FileUnreadable,
        r"after \d+ rows.*fetch",
    ),
    "cut zst": (
        "events.csv.zst",
        lambda folder: packed(folder, ".zst")[:-200],
        FileUnreadable,
        r"after \d+ rows.*fetch",
    ),
    "no gzip at all": ("events.csv.gz", lambda _: csv_text(GOOD).encode(), FileUnreadable, r"cannot be read as csv"),
    "a header with a line end in it": (
        "events.csv",
        lambda _: b"event_id\revent_type\n" + csv_text(GOOD).encode(),
        FileUnreadable,
        r"header cannot be taken apart.*mend its line",
    ),
    "UTF-16": ("events.csv", lambda _: csv_text(GOOD).encode("utf-16"), FileUnreadable, r'file.encoding = "utf-16"'),
    "another log": (
        "events.csv",
        lambda _: b"event_time,event_type,product_id,user_id\n2026-08-21,view,1,2\n",
        MappingDoesNotFit,
        r"'occurred_at'.*the file has 'event_time', 'event_type', 'product_id', 'user_id'.*--source",
    ),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_that_cannot_be_read(shop, tmp_path, kind):
    name, content, error, message = BAD_FILES[kind]
    daily.validate_events(DAY, shop, path=str(write_file(tmp_path, "good/events.csv", GOOD)))
    with nothing_published(shop), pytest.raises(error, match=f"(?s){message}") as caught:
        daily.validate_events(DAY, shop, path=str(write_file(tmp_path / "bad", name, content(tmp_path))))
    assert "Traceback" not in str(caught.value)
    assert name in str(caught.value)
    mended = write_file(tmp_path / "mended", name, [*GOOD, an_event(99)])
    assert daily.validate_events(DAY, shop, path=str(mended)).accounts[0].accepted == 21


@pytest.mark.parametrize("place", ["empty", "missing", "missing/{day}.csv"])
def test_an_empty_folder_and_a_missing_path(shop, tmp_path, place):
    (tmp_path / "empty").mkdir()
    with (
        nothing_published(shop),
        pytest.raises(FileUnreadable, match=r"there is no .* (folder|file)\. Nothing was taken"),
    ):
        daily.validate_events(DAY, shop, path=str(tmp_path / place))


def test_one_bad_file_of_a_folder_holds_back_the_others(shop, tmp_path):
    write_file(tmp_path / "in", "a.csv", GOOD)
    write_file(tmp_path / "in", "b.csv", b"")
    with nothing_published(shop), pytest.raises(FileUnreadable, match=r"^b\.csv"):
        daily.validate_events(DAY, shop, path=str(tmp_path / "in"))


def test_all_rows_bad(shop, tmp_path):
    daily.validate_events(DAY, shop, path=str(write_file(tmp_path, "events.csv", GOOD)))
    clean = Lake(shop.lake_root, shop.shop).snapshot().tables["clean"]
    bad = write_file(tmp_path, "events.csv", [an_event(number, price="-1") for number in range(30)])
    with pytest.raises(
        DayRefused, match=r"30 of 30 events rejected \(100\.00 %, allowed 1\.00 %\)\.\nBy rule: price_absurd 30"
    ) as caught:
        daily.validate_events(DAY, shop, path=str(bad))
    assert "the day has events" in caught.value.failed_expectations
    assert Lake(shop.lake_root, shop.shop).snapshot().tables["clean"] == clean


def test_unknown_words_are_named_with_what_the_mapping_knows(shop, tmp_path):
    path = write_file(tmp_path, "events.csv", [an_event(1, event_type="hover"), an_event(2, event_type="hover"), *GOOD])
    with pytest.raises(DayRefused, match=r"Words that sources/native\.toml does not know: 'hover' 2"):
        daily.validate_events(DAY, shop, path=str(path))


@pytest.mark.parametrize("value", [RAW_USER, "customer-000042", "alice", "4711"])
def test_values_of_a_log_without_header_are_not_shown(shop, tmp_path, value):
    path = write_file(tmp_path, "events.csv", f"2026-08-21T10:00:00Z,view,{value},i1\n".encode())
    with pytest.raises(MappingDoesNotFit) as caught:
        daily.validate_events(DAY, shop, path=str(path))
    assert value not in str(caught.value)
    assert "has_header = false" in str(caught.value)


def test_ids_in_the_event_type_column_are_not_shown(shop, tmp_path):
    path = write_file(
        tmp_path, "events.csv", [an_event(number, event_type=f"name{chr(97 + number)}") for number in range(26)]
    )
    with pytest.raises(DayRefused) as caught:
        daily.validate_events(DAY, shop, path=str(path))
    assert "26 different ones" in str(caught.value)
    assert "nameb" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("price =", "prize ="), "'prize', which is not in the contract"),
        (('occurred_at = "occurred_at"', ""), "'occurred_at' has neither a column nor a constant"),
        (('view = "view"', 'view = "looked"'), "gives 'looked' for 'view'; our words are view, search"),
        (('format = "csv"', 'format = "xml"'), "file.format is 'xml'; give one of csv, jsonl, parquet"),
        (('format = "iso8601"', 'format = "iso8601"\ntime_zone = "Mars/Base"'), "'Mars/Base'; give an IANA name"),
        (("[columns]", "[colums]"), "unknown keys: colums"),
        (("[columns]", "[columns"), "is not TOML"),
    ],
)
def test_a_wrong_mapping_says_what_is_wrong(shop, tmp_path, change, message):
    from received import mapping_with

    source = Path(mapping_with(tmp_path, name="mine"))
    source.write_text(source.read_text().replace(*change, 1))
    with nothing_published(shop), pytest.raises(MappingInvalid) as caught:
        daily.validate_events(DAY, shop, source=str(source), path=str(write_file(tmp_path, "events.csv", GOOD)))
    assert message in str(caught.value)


def test_a_catalogue_that_is_missing_or_has_no_titles(shop, tmp_path):
    good = write_file(tmp_path, "items.csv", CATALOGUE_HEADER + b"i1,red shoes,,shoes,acme,9.5,EUR,true,\n")
    daily.load_catalogue(shop, path=str(good))
    with nothing_published(shop), pytest.raises(FileUnreadable, match="no such file"):
        daily.load_catalogue(shop, path=str(tmp_path / "absent.csv"))
    untitled = write_file(tmp_path, "none.csv", CATALOGUE_HEADER + b"i1,,,shoes,acme,9.5,EUR,true,\n" * 3)
    with nothing_published(shop), pytest.raises(CatalogueInvalid, match=r"0 of 1 items have a title.*stays; mend"):
        daily.load_catalogue(shop, path=str(untitled))
    assert daily.load_catalogue(shop, path=str(good)).items == 1


CATALOGUE_HEADER = b"item_id,title,description,category,brand,price,currency,is_available,updated_at\n"


def test_a_database_that_is_not_there(shop, tmp_path):
    path = str(write_file(tmp_path, "events.csv", GOOD))
    away = replace(shop, database_url="postgresql+psycopg2://intent:secret-word@localhost:1/intent")
    with (
        nothing_published(shop),
        pytest.raises(DatabaseUnavailable, match=r"localhost:1.*start the server.*run the step") as caught,
    ):
        daily.validate_events(DAY, away, path=path)
    assert "secret-word" not in str(caught.value)
    assert daily.validate_events(DAY, shop, path=path).accounts[0].accepted == 20


def test_a_database_that_stops_in_the_middle_of_a_day(tmp_path, monkeypatch):
    home = Path(tempfile.gettempdir()) / f"intent-gone-{uuid.uuid4().hex[:8]}"
    given = Settings(home=home / "home", postgres_home=str(home / "postgres"), encoder="none")
    create_missing_keys(given)
    first, second = (
        str(write_file(tmp_path / name, "events.csv", rows)) for name, rows in (("1", GOOD), ("2", GOOD[:5]))
    )
    try:
        with db.serve(given) as settings:
            db.migrate(settings)
            daily.run_day(DAY, settings, path=first)
            tables, published = dump(settings), manifest(settings)
            judge_day = validation.judge_day

            def stop_and_judge(*arguments, **named):
                embedded._Server.at(Path(given.postgres_home)).stop()
                return judge_day(*arguments, **named)

            with monkeypatch.context() as patch:
                patch.setattr(validation, "judge_day", stop_and_judge)
                with pytest.raises(DatabaseUnavailable, match="Nothing of this transaction was kept"):
                    daily.validate_events(DAY, settings, path=second)
            for step in (daily.build_sequences, daily.refresh_profiles):
                with pytest.raises(DatabaseUnavailable):
                    step(DAY, settings)
            assert manifest(settings) == published
        with db.serve(given) as settings:
            assert dump(settings) == tables
            assert daily.run_day(DAY, settings, path=second)[0].accounts[0].accepted == 5
    finally:
        shutil.rmtree(home, ignore_errors=True)


def test_a_commit_that_fails_after_the_lake_was_published_is_mended_by_the_rerun(shop, tmp_path, monkeypatch):
    first, second = (
        str(write_file(tmp_path / name, "events.csv", rows)) for name, rows in (("1", GOOD), ("2", GOOD[:5]))
    )
    daily.run_day(DAY, shop, path=first)
    tables, published = dump(shop), manifest(shop)
    publish = Lake.publish

    def publish_and_lose_the_connection(*arguments, **named):
        snapshot = publish(*arguments, **named)
        with db.connect(shop) as other:
            other.execute(
                sa.text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        return snapshot

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "publish", publish_and_lose_the_connection)
        with pytest.raises(DatabaseUnavailable, match="run the step again"):
            daily.validate_events(DAY, shop, path=second)
    assert manifest(shop) != published  # the lake is ahead,
    assert dump(shop) == tables  # the accounts still tell of the day before
    (account,) = daily.validate_events(DAY, shop, path=second).accounts
    assert (account.rows_read, account.accepted) == (5, 5)
    with db.connect(shop) as connection:
        counts = connection.execute(sa.text("SELECT sum(accepted) FROM quality.file_account")).scalar_one()
        rows = connection.execute(sa.text("SELECT rows FROM quality.clean_day")).scalars().all()
    assert (counts, rows) == (5, [5])
    assert Lake(shop.lake_root, shop.shop).snapshot().rows("clean", f"day={DAY}") == 5


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk (tmpfs) is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full_while_publishing(shop, tmp_path, small_disk):
    settings = replace(shop, lake=str(small_disk / "lake"))
    daily.validate_events(DAY, settings, path=str(write_file(tmp_path, "events.csv", GOOD)))
    large = [an_event(number, query_text=os.urandom(100).hex()) for number in range(4000)]
    write_file(tmp_path / "in", "1.csv", large[:1])
    write_file(tmp_path / "in", "2.csv", large)
    path = str(tmp_path / "in")
    for free_kib in (0, 20, 300, 600):  # accepted rows take about 450 KiB, and as much again without the repeat
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - free_kib * 1024))
        with (
            nothing_published(settings),
            pytest.raises(LakeUnavailable, match="Nothing was published; free some space"),
        ):
            daily.validate_events(DAY, settings, path=path)
        ballast.unlink()
        _remove_left_overs(settings)
    assert (
        daily.validate_events(DAY, settings, path=str(write_file(tmp_path, "events.csv", GOOD[:3])))
        .accounts[0]
        .accepted
        == 3
    )


def _remove_left_overs(settings):
    now = datetime.now(UTC) + timedelta(hours=1)
    Lake(settings.lake_root, settings.shop).remove_unpublished(older_than=timedelta(0), now=now)


def test_an_encoder_that_is_not_there(shop, tmp_path):
    path = str(write_file(tmp_path, "events.csv", GOOD))
    daily.validate_events(DAY, shop, path=path)
    daily.build_sequences(DAY, shop)
    with (
        nothing_published(shop),
        pytest.raises(EncoderMissing, match=r"'/nowhere' is neither a folder nor.*INTENT_ENCODER"),
    ):
        daily.refresh_profiles(DAY, replace(shop, encoder="/nowhere"))
    assert daily.refresh_profiles(DAY, shop).users == 1


@pytest.mark.parametrize("kind", ["model", "index"])
def test_a_release_whose_bytes_changed(shop, tmp_path, kind):
    daily.run_day(DAY, shop, path=str(write_file(tmp_path, "events.csv", GOOD)))
    newer = str(write_file(tmp_path, "events.csv", [*GOOD, an_event(77, user_id="another")]))
    daily.validate_events(DAY, shop, path=newer)
    daily.build_sequences(DAY, shop)
    root = Path(Lake(shop.lake_root, shop.shop).path(kind))
    part = max((each for each in root.rglob("*") if each.is_file()), key=lambda each: each.stat().st_size)
    content = part.read_bytes()
    part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    forget_loaded_parts()
    with (
        nothing_published(shop),
        pytest.raises(ReleaseInvalid, match=f"{part.name} was changed.*promote another release"),
    ):
        daily.refresh_profiles(DAY, shop)
    part.write_bytes(content)
    assert daily.refresh_profiles(DAY, shop).users == 2


def forget_loaded_parts() -> None:
    for cached in (parts._checked, item_index._load, behaviour._load):
        cached.cache_clear()


def test_a_day_that_reads_well_later_comes_in_later(shop, tmp_path):
    path = write_file(tmp_path, "events.csv", [an_event(1, occurred_at=f"{DAY + timedelta(days=3)}T00:00:00Z")])
    with pytest.raises(DayRefused, match="occurred_outside_window 1"):
        daily.validate_events(DAY, shop, path=str(path))
    assert daily.validate_events(DAY + timedelta(days=3), shop, path=str(path)).accounts[0].accepted == 1
