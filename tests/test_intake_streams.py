"""The door reads, judges and writes at the same time; days are made of parts; digests do not see how."""

import itertools
import math
import struct
import threading
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from received import DAY, an_event, door_of, dump, manifest, taken_in, write_file

from intent_platform import daily
from intent_platform.errors import FileUnreadable, LakeUnavailable
from intent_platform.events import framing, parts, pseudonyms
from intent_platform.events.ahead import ahead
from intent_platform.events.content import MODULUS, content_sum
from intent_platform.events.contract import EVENT_SCHEMA
from intent_platform.events.pseudonyms import Pseudonymiser
from intent_platform.keys import create_missing_keys
from intent_platform.lake import Lake


@pytest.fixture
def shop(settings):
    settings = replace(settings, encoder="none")
    create_missing_keys(settings)
    return settings


def threads_ahead() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("ahead")]


def test_the_next_item_is_made_while_the_caller_holds_one():
    is_made = threading.Event()

    def items():
        yield 1
        is_made.set()
        yield 2

    with ahead(items()) as made:
        assert next(made) == 1
        assert is_made.wait(timeout=10)
        assert list(made) == [2]
    assert threads_ahead() == []


def test_an_error_comes_after_the_items_before_it_and_as_it_was():
    error = FileUnreadable("events.csv: cut short")

    def items():
        yield 1
        raise error

    with ahead(items()) as made:
        assert next(made) == 1
        with pytest.raises(FileUnreadable) as caught:
            next(made)
    assert caught.value is error
    assert threads_ahead() == []


def test_leaving_early_closes_every_stage():
    closed = []

    def numbers():
        try:
            yield from itertools.count()
        finally:
            closed.append("numbers")

    def doubled():
        with ahead(numbers()) as made:
            for each in made:
                yield 2 * each

    with ahead(doubled()) as made:
        assert [next(made), next(made)] == [0, 2]
    assert closed == ["numbers"]
    assert threads_ahead() == []


MANY = [an_event(number, brand=f"brand {number}") for number in range(400)]


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(framing, "BLOCK_BYTES", 4096)


def lake_files(settings) -> list[str]:
    lake = Lake(settings.lake_root, settings.shop)
    return sorted(path for path in lake.filesystem.find(lake.path("")) if path.endswith(".parquet"))


@pytest.mark.usefixtures("small_blocks")
def test_a_file_cut_short_in_the_middle_of_the_stream(shop, tmp_path):
    daily.validate_events(DAY, shop, path=str(write_file(tmp_path, "events.csv.gz", MANY[:5])))
    tables, published, files = dump(shop), manifest(shop), lake_files(shop)
    whole = write_file(tmp_path / "whole", "events.csv.gz", MANY).read_bytes()
    cut = write_file(tmp_path / "cut", "events.csv.gz", whole[:-40])
    with pytest.raises(FileUnreadable, match=r"^events\.csv\.gz: cannot be read as csv after [1-9]\d* rows: .*fetch"):
        daily.validate_events(DAY, shop, path=str(cut))
    assert threads_ahead() == []
    assert (dump(shop), manifest(shop), lake_files(shop)) == (tables, published, files)


@pytest.mark.usefixtures("small_blocks")
def test_a_disk_that_fills_in_the_middle_of_the_stream(shop, tmp_path, monkeypatch):
    daily.validate_events(DAY, shop, path=str(write_file(tmp_path, "events.csv", MANY[:5])))
    tables, published, files = dump(shop), manifest(shop), lake_files(shop)
    calls = itertools.count()

    def fill(events: pa.Table) -> int:
        if next(calls) == 3:
            raise OSError(28, "No space left on device")
        return content_sum(events)

    monkeypatch.setattr(parts, "content_sum", fill)
    with pytest.raises(LakeUnavailable, match="No space left on device"):
        daily.validate_events(DAY, shop, path=str(write_file(tmp_path, "events.csv", MANY)))
    assert threads_ahead() == []
    assert (dump(shop), manifest(shop), lake_files(shop)) == (tables, published, files)


def test_what_a_block_holds_changes_no_row_and_no_digest(shop, tmp_path, monkeypatch):
    events = [*MANY, an_event(7), *(an_event(1000 + number, event_id="") for number in range(20))]
    door = door_of(shop)
    path = write_file(tmp_path, "events.csv", events)
    whole = taken_in(path, door)
    monkeypatch.setattr(framing, "BLOCK_BYTES", 3000)
    piecemeal = taken_in(path, door)
    assert piecemeal.account == whole.account
    assert [each.tags for each in piecemeal.accepted] == [each.tags for each in whole.accepted]


def test_a_clean_day_is_the_accepted_parts_themselves(shop, tmp_path):
    write_file(tmp_path / "in", "1.csv", [an_event(1), an_event(2), an_event(3, occurred_at="2026-08-20T05:00:00Z")])
    write_file(tmp_path / "in", "2.csv", [an_event(4)])
    daily.validate_events(DAY, shop, path=str(tmp_path / "in"))
    tables = Lake(shop.lake_root, shop.shop).snapshot().tables
    accepted = {each.path for files in tables["accepted"].values() for each in files}
    assert {day: len(files) for day, files in tables["clean"].items()} == {"day=2026-08-20": 1, "day=2026-08-21": 2}
    assert {each.path for files in tables["clean"].values() for each in files} == accepted


def test_only_the_part_that_repeats_an_event_is_written_again(shop, tmp_path):
    write_file(tmp_path / "in", "1.csv", [an_event(1), an_event(2)])
    write_file(tmp_path / "in", "2.csv", [an_event(2, price="7"), an_event(3)])
    daily.validate_events(DAY, shop, path=str(tmp_path / "in"))
    snapshot = Lake(shop.lake_root, shop.shop).snapshot()
    folders = sorted(each.path.split("/")[0] for each in snapshot.files("clean", f"day={DAY}"))
    assert folders == ["accepted", "clean"]
    assert sorted(snapshot.read("clean").select(["event_id", "price"]).to_pydict()["price"]) == [19.5, 19.5, 19.5]


def some_events(rows: int = 300, seed: int = 1) -> pa.Table:
    """Random texts of all lengths, among them Chinese ones, NULLs and numbers at their limits."""
    rng = np.random.default_rng(seed)

    def texts() -> pa.Array:
        lengths = rng.integers(0, 40, rows)
        return pa.array([None if n == 0 else "".join(rng.choice(list("ab鞋½"), n)) for n in lengths], pa.string())

    def numbers(kind: pa.DataType) -> pa.Array:
        return pa.array(rng.integers(0, 3, rows)).cast(kind)

    return pa.table(
        [texts() if pa.types.is_string(each.type) else numbers(each.type) for each in EVENT_SCHEMA], schema=EVENT_SCHEMA
    )


def test_the_digest_sees_neither_order_nor_parts():
    events = some_events()
    shuffled = events.take(np.random.default_rng(2).permutation(events.num_rows))
    split = [shuffled.slice(start, 70) for start in range(0, events.num_rows, 70)]
    assert content_sum(shuffled) == content_sum(events) == sum(map(content_sum, split)) % MODULUS
    assert content_sum(pa.concat_tables(split)) == content_sum(events)


@pytest.mark.parametrize("name", EVENT_SCHEMA.names)
def test_the_digest_sees_a_changed_value_and_two_swapped_ones(name):
    events = some_events()
    column = events[name]
    position = events.schema.get_field_index(name)
    other = pc.if_else(pa.array(np.arange(300) == 17), column.take([(17 + _distance(column)) % 300] * 300), column)
    reverse = column.take(np.arange(300)[::-1])
    for changed in (other, reverse):
        assert content_sum(events.set_column(position, name, changed)) != content_sum(events)


def _distance(column: pa.ChunkedArray) -> int:
    values = column.to_pylist()
    return next(step for step in range(1, 300) if values[(17 + step) % 300] != values[17])


def test_the_digest_is_the_sum_of_its_rows_hashes():
    """By the definition, value by value: stored digests stay comparable, whatever engine counts them."""
    events = some_events()
    assert content_sum(events) == sum(row_hash(row) for row in events.to_pylist()) % MODULUS
    assert content_sum(events.slice(0, 0)) == 0


def row_hash(row: dict) -> int:
    found = 0
    for each in EVENT_SCHEMA:
        value = row[each.name]
        if pa.types.is_string(each.type):
            text = (value or "").encode()
            words = [text[start : start + 8] for start in range(0, len(text), 8)] or [b""]
            found ^= len(text)
        elif pa.types.is_timestamp(each.type):
            words = [struct.pack("<q", round(value.timestamp() * 1_000_000))]
        else:
            words = [struct.pack("<d", math.nan if value is None else value)]
        for word in words:
            found = mixed(found ^ int.from_bytes(word, "little"))
    return found


def mixed(number: int) -> int:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        number = (number ^ number >> 33) * factor % MODULUS
    return number ^ number >> 33


def test_an_id_keeps_its_pseudonym_when_the_memory_of_ids_is_full(monkeypatch):
    monkeypatch.setattr(pseudonyms, "REMEMBERED_IDS", 3)
    door = Pseudonymiser(key=bytes(32), shop="main")
    for raw_ids in ([None], [], ["a", None, "b", "a"], ["c", "d", "a"], [None], ["a", "e", "b"]):
        found = door.replace_ids(pa.table({"user_id": pa.array(raw_ids, pa.string())}))["user_id"].to_pylist()
        assert found == [each and door.of_user(each) for each in raw_ids]
