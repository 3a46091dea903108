"""Received files become accepted, quarantined and duplicate rows, whatever the file is written in."""

import itertools
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from junk import junk_csv
from received import (
    DAY,
    HEADER,
    RAW_DEVICE,
    RAW_USER,
    accepted_rows,
    an_event,
    broken_rules,
    csv_line,
    csv_text,
    door_of,
    dump,
    mapping_with,
    taken_in,
    unsealed_rows,
    write_file,
)

from intent_platform import daily, db
from intent_platform.errors import DayRefused
from intent_platform.events import framing
from intent_platform.events.rules import RULES
from intent_platform.keys import create_missing_keys
from intent_platform.lake import Lake
from intent_platform.settings import Settings


@pytest.fixture
def offline(tmp_path):
    """Settings with keys and a lake, and no database: enough to take a file in."""
    settings = Settings(home=tmp_path / "home", threads=2)
    create_missing_keys(settings)
    return settings


@pytest.fixture
def shop(settings):
    """Text by n-grams alone: the encoder takes seconds to load."""
    settings = replace(settings, encoder="none")
    create_missing_keys(settings)
    return settings


def receive(settings, folder: Path, events, *, day: date = DAY, name: str = "events.csv", **options):
    return daily.validate_events(day, settings, path=str(write_file(folder / str(day), name, events)), **options)


SOME_EVENTS = [
    *(an_event(number) for number in range(1, 40)),
    an_event(40, event_id="", query_text='red "trail" shoes,\nsize 42', event_type="search", item_id="", price=""),
    an_event(41, event_id="", query_text="跑步鞋 ½", anonymous_id=RAW_DEVICE, user_id=""),
    an_event(42, event_type="purchase", quantity="2", order_id="o1"),
    an_event(43, event_type="rating", rating="4.5"),
    an_event(1),  # a repeat
    an_event(44, price="-1"),  # absurd
]


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("file_format", ["csv", "jsonl", "parquet"])
def test_the_same_events_are_accepted_from_every_format(offline, tmp_path, file_format, packing):
    if file_format == "parquet" and packing:
        pytest.skip("Parquet packs its own pages; it is read by seeking, which a packed stream cannot do")
    reference = door_of(offline)
    expected = accepted_rows(taken_in(write_file(tmp_path, "events.csv", SOME_EVENTS), reference), reference)
    door = door_of(offline, source=mapping_with(tmp_path, format=file_format))
    intake = taken_in(write_file(tmp_path, f"other.{file_format}{packing}", SOME_EVENTS), door)
    account = intake.account
    assert (account.rows_read, account.accepted, account.duplicate) == (45, 43, 1)
    assert account.by_rule == {"price_absurd": 1}
    assert accepted_rows(intake, door) == expected


def test_a_log_without_header_in_unix_seconds(offline, tmp_path):
    lines = [
        "u7,2268318,2520377,pv,1511544070",  # 2017-11-25 01:21:10 in China, the day before in UTC
        "u7,2268318,2520377,fav,1511544080",
        "u8,2268318,2520377,buy,1511544090",
    ]
    settings = replace(offline, time_zone="Asia/Shanghai")
    door = door_of(settings, source="taobao", day=date(2017, 11, 25))
    intake = taken_in(write_file(tmp_path, "log.csv", "\n".join(lines).encode()), door)
    rows = sorted(accepted_rows(intake, door), key=lambda row: row["occurred_at"])
    assert [row["event_type"] for row in rows] == ["view", "purchase"]
    assert rows[0]["occurred_at"] == datetime(2017, 11, 24, 17, 21, 10, tzinfo=UTC)
    assert {row["day"] for row in rows} == {date(2017, 11, 25)}
    assert broken_rules(intake, door) == {2: "event_type_ignored"}


def test_times_in_unix_milliseconds(offline, tmp_path):
    lines = ["timestamp,visitorid,event,itemid,transactionid"]
    lines += ["1433221332117,257597,view,355908,", "1433221332118,1,transaction,2,9"]
    text = "\n".join(lines)
    door = door_of(offline, source="retailrocket", day=date(2015, 6, 2))
    rows = accepted_rows(taken_in(write_file(tmp_path, "log.csv", text.encode()), door), door)
    assert sorted((row["occurred_at"].microsecond, row["order_id"]) for row in rows) == [
        (117_000, None),
        (118_000, "9"),
    ]


@pytest.mark.parametrize(
    ("occurred_at", "day"),
    [
        ("2026-10-24T21:59:59Z", date(2026, 10, 24)),
        ("2026-10-24T22:00:00Z", date(2026, 10, 25)),  # summer time: two hours ahead of UTC
        ("2026-10-25T22:59:59Z", date(2026, 10, 25)),  # winter time since 3 o'clock: one hour ahead
        ("2026-10-25T02:30:00+02:00", date(2026, 10, 25)),  # the hour that comes twice, first time
        ("2026-10-25T02:30:00+01:00", date(2026, 10, 25)),  # and second time
    ],
)
def test_the_shops_time_zone_decides_the_day(offline, tmp_path, occurred_at, day):
    door = door_of(replace(offline, time_zone="Europe/Berlin"), day=date(2026, 10, 25))
    intake = taken_in(write_file(tmp_path, "events.csv", [an_event(occurred_at=occurred_at)]), door)
    assert [row["day"] for row in accepted_rows(intake, door)] == [day]


def test_the_day_of_a_clock_change_ends_at_the_shops_midnight(offline, tmp_path):
    door = door_of(replace(offline, time_zone="Europe/Berlin"), day=date(2026, 10, 25))
    times = ["2026-10-25T22:59:59Z", "2026-10-25T23:00:00Z", "2026-10-22T22:00:00Z", "2026-10-22T21:59:59Z"]
    events = [an_event(number, occurred_at=each) for number, each in enumerate(times)]
    intake = taken_in(write_file(tmp_path, "events.csv", events), door)
    assert broken_rules(intake, door) == {3: "occurred_outside_window", 5: "occurred_outside_window"}


def test_times_without_offset_are_in_the_mappings_time_zone(offline, tmp_path):
    source = mapping_with(tmp_path, time_zone="America/New_York")
    door = door_of(offline, source=source)
    events = [an_event(1, occurred_at=f"{DAY} 08:00:00"), an_event(2, occurred_at=f"{DAY}T08:00:00+09:00")]
    rows = accepted_rows(taken_in(write_file(tmp_path, "events.csv", events), door), door)
    assert [row["occurred_at"].isoformat() for row in rows] == [f"{DAY}T12:00:00+00:00", "2026-08-20T23:00:00+00:00"]


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "latin-1", "utf-8-sig"])
def test_other_encodings(offline, tmp_path, encoding):
    query = "Größe ½" if encoding == "latin-1" else "跑步鞋 ½"
    text = csv_text([an_event(1, query_text=query), an_event(2)])
    door = door_of(offline, source=mapping_with(tmp_path, encoding=encoding))
    rows = accepted_rows(taken_in(write_file(tmp_path, "log.csv", text.encode(encoding)), door), door)
    assert [row["query_text"] for row in rows] == [query, None]


def test_bytes_that_fit_no_encoding_are_set_aside_row_by_row(offline, tmp_path):
    text = csv_text([an_event(1, query_text="跑步鞋"), an_event(2)]).encode("gb18030")
    torn = csv_line(an_event(3)).encode().replace(b"shoes", b"\xff\xff")
    door = door_of(offline, source=mapping_with(tmp_path, encoding="gb18030"))
    intake = taken_in(write_file(tmp_path, "log.csv", text + torn + b"\n"), door)
    assert broken_rules(intake, door) == {4: "encoding_broken"}
    assert intake.account.accepted == 2


def test_quoted_newlines_make_one_row_and_stray_quotes_tear_only_their_own(offline, tmp_path):
    lines = [
        HEADER,
        csv_line(an_event(1, query_text='first\nsecond, "third"')),  # lines 2 and 3
        csv_line(an_event(2)),
        csv_line(an_event(3)).replace("shoes", '"shoes'),  # a quote that opens and never closes
        csv_line(an_event(4)),
        csv_line(an_event(5)).replace("EUR", 'E"UR'),  # and one in the middle of a text
        csv_line(an_event(6)),
    ]
    door = door_of(offline)
    intake = taken_in(write_file(tmp_path, "events.csv", "\n".join(lines).encode()), door)
    assert [row["event_id"] for row in accepted_rows(intake, door)] == ["e00001", "e00002", "e00004", "e00006"]
    assert set(broken_rules(intake, door)) == {5, 7}
    assert intake.account.rows_read == 6


BREAKS = {
    "row_torn": "view,only,three",
    "encoding_broken": csv_line(an_event()).encode().replace(b"shoes", b"\xc3\x28"),
    "row_too_long": csv_line(an_event(query_text="x" * (framing.MAX_ROW_BYTES + 1))),
    "event_type_ignored": csv_line(an_event(event_type="heartbeat")),
    "event_type_unknown": csv_line(an_event(event_type="hover")),
    "user_missing": csv_line(an_event(user_id="")),
    "occurred_at_unreadable": csv_line(an_event(occurred_at="21st of August")),
    "occurred_outside_window": csv_line(an_event(occurred_at="2026-08-18T23:59:59Z")),
    "item_missing": csv_line(an_event(item_id="")),
    "query_missing": csv_line(an_event(event_type="search")),
    "price_absurd": csv_line(an_event(price="1e300")),
    "quantity_absurd": csv_line(an_event(quantity="0")),
    "rating_absurd": csv_line(an_event(rating="eleven")),
    "rating_missing": csv_line(an_event(event_type="rating")),
    "currency_absurd": csv_line(an_event(currency="eur")),
    "text_too_long": csv_line(an_event(brand="x" * 257)),
}


def test_every_rule_has_a_row_that_breaks_it():
    assert list(BREAKS) == [rule.__name__ for rule in RULES]


def test_each_row_breaks_exactly_its_rule_and_can_be_unsealed(offline, tmp_path):
    text = Path(mapping_with(tmp_path, name="ignoring")).read_text() + '\n[ignore]\nevent_types = ["heartbeat"]\n'
    (tmp_path / "ignoring.toml").write_text(text)
    door = door_of(offline, source=str(tmp_path / "ignoring.toml"))
    raw = [line if isinstance(line, bytes) else line.encode() for line in BREAKS.values()]
    good = csv_line(an_event(99)).encode()
    intake = taken_in(write_file(tmp_path, "events.csv", b"\n".join([HEADER.encode(), good, *raw])), door)
    assert broken_rules(intake, door) == dict(enumerate(BREAKS, start=3))
    assert intake.account.accepted == 1
    kept = [each[: framing.KEPT_OF_LONG_ROW_BYTES] if len(each) > framing.MAX_ROW_BYTES else each for each in raw]
    assert unsealed_rows(intake, door) == dict(enumerate(kept, start=3))


@pytest.mark.parametrize(
    ("quantity", "is_accepted"),
    [("2", True), ("2.0", True), ("100000", True)]
    + [(text, False) for text in ("2.5", "0.5", "100000.4", "1e20", "1e300", "inf", "nan")],
)
def test_a_quantity_is_a_whole_number(offline, tmp_path, quantity, is_accepted):
    door = door_of(offline)
    intake = taken_in(write_file(tmp_path, "events.csv", [an_event(quantity=quantity)]), door)
    assert intake.account.by_rule == ({} if is_accepted else {"quantity_absurd": 1})


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "parquet"])
def test_a_blank_id_is_none(offline, tmp_path, file_format):
    events = [an_event(1, user_id="  "), an_event(2, user_id=" ", anonymous_id="\t"), an_event(3, event_id=" \t ")]
    events.append(an_event(4, user_id=" ", anonymous_id=RAW_DEVICE))
    door = door_of(offline, source=mapping_with(tmp_path, format=file_format))
    intake = taken_in(write_file(tmp_path, f"events.{file_format}", events), door)
    assert intake.account.by_rule == {"user_missing": 2}
    digest, device = sorted(accepted_rows(intake, door), key=lambda row: row["user_id"] is None)
    assert len(digest["event_id"]) == 32
    assert (device["user_id"], device["anonymous_id"][:3]) == (None, "a1_")


def test_an_object_or_a_list_is_no_value_of_a_field(offline, tmp_path):
    odd = [{"event_id": {"a": 1}}, {"category": ["shoes"]}, {"quantity": []}, {"user_id": {"nested": [1, None]}}]
    fine = [{"event_id": "5", "unmapped": {"a": [1]}}, {"event_id": "6", "query_text": '{"a": [1]}'}]
    lines = "".join(json.dumps(an_event(1) | each) + "\n" for each in [*odd, *fine])
    door = door_of(offline, source=mapping_with(tmp_path, format="jsonl"))
    intake = taken_in(write_file(tmp_path, "events.jsonl", lines.encode()), door)
    assert broken_rules(intake, door) == dict.fromkeys(range(1, 5), "row_torn")
    assert [row["event_id"] for row in accepted_rows(intake, door)] == ["5", "6"]


def verdicts(content: bytes, monkeypatch, **changed) -> list:
    """(line, rule or the row's fields) for each row by line, with some constants or functions of framing replaced."""
    with monkeypatch.context() as patch:
        for name, value in changed.items():
            patch.setattr(framing, name, value)
        stream, header, found = io_read(content), None, []
        for lines in framing.blocks_of_lines(stream, encoding="utf-8", quote='"'):
            if header is None:
                header, lines = framing.take_header(lines, ",", '"')
            lines, columns = framing.parse_csv(
                lines, header=header, wanted=header, delimiter=",", quote='"', null_words=("",)
            )
            rows = zip(*(columns[name].to_pylist() for name in header), strict=True)
            found += zip(lines.numbers.tolist(), lines.broken.tolist(), rows, strict=True)
        return sorted(found, key=lambda row: row[0])


def io_read(content: bytes):
    import io

    return io.BytesIO(content).read


@hypothesis_settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=junk_csv())
def test_the_fast_and_the_slow_way_give_the_same_rows(monkeypatch, content):
    slow = verdicts(content, monkeypatch, _parse_fast=lambda *_: None)
    assert verdicts(content, monkeypatch) == slow


@hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=st.lists(
        st.tuples(st.sampled_from(["plain", 'quoted, "text"', "two\nlines", "two\r\nlines"]), st.booleans()),
        min_size=1,
        max_size=30,
    ),
    block=st.integers(200, 2000),
)
def test_where_a_block_ends_changes_nothing(monkeypatch, events, block):
    lines = [
        csv_line(an_event(number, query_text=query))[: -9 if is_torn and "\n" not in query else None]
        for number, (query, is_torn) in enumerate(events)
    ]
    content = "\n".join([HEADER, *lines]).encode()
    assert verdicts(content, monkeypatch, BLOCK_BYTES=block) == verdicts(content, monkeypatch)


def test_a_line_beyond_all_bounds_is_one_row_and_the_next_is_fine(offline, tmp_path, monkeypatch):
    monkeypatch.setattr(framing, "BLOCK_BYTES", 1 << 20)
    content = csv_text([an_event(1)]).encode() + b"x" * (5 << 20) + b"\n" + csv_line(an_event(2)).encode()
    door = door_of(offline)
    intake = taken_in(write_file(tmp_path, "events.csv", content), door)
    assert broken_rules(intake, door) == {3: "row_too_long"}
    assert intake.account.accepted == 2


def test_a_repeat_is_a_duplicate_with_and_without_an_event_id(offline, tmp_path):
    twice = [
        an_event(1),
        an_event(1, price="20"),
        an_event(2, event_id=""),
        an_event(2, event_id=""),
        an_event(3, event_id=""),
    ]
    door = door_of(offline)
    intake = taken_in(write_file(tmp_path, "events.csv", twice), door)
    assert (intake.account.accepted, intake.account.duplicate) == (3, 2)
    assert [row["price"] for row in accepted_rows(intake, door) if row["event_id"] == "e00001"] == [19.5]  # the first


def test_late_events_reach_their_day(shop, tmp_path):
    before = DAY - timedelta(days=1)
    receive(shop, tmp_path, [an_event(1, occurred_at=f"{before}T10:00:00Z")], day=before)
    late = an_event(2, occurred_at=f"{before}T11:00:00Z")
    report = receive(shop, tmp_path, [late, an_event(3)])
    assert report.days_published == (before, DAY)
    snapshot = Lake(shop.lake_root, shop.shop).snapshot()
    assert sorted(snapshot.read("clean", [f"day={before}"])["event_id"].to_pylist()) == ["e00001", "e00002"]
    assert snapshot.read("clean", [f"day={DAY}"])["event_id"].to_pylist() == ["e00003"]


def test_any_order_of_three_received_days_ends_the_same(shop, tmp_path, monkeypatch):
    from intent_platform.events import validation

    monkeypatch.setattr(validation, "judge_day", lambda *_, **__: [])  # Great Expectations: 1 s each, judged elsewhere
    days = [DAY, DAY + timedelta(days=2), DAY + timedelta(days=4)]
    received = {
        days[0]: [an_event(1), an_event(2), an_event(9)],
        days[1]: [
            an_event(3, occurred_at=f"{days[1]}T01:00:00Z"),
            an_event(2),
            an_event(4, occurred_at=f"{DAY}T23:00:00Z"),
        ],
        # e00009 came on the first day already, and this copy claims a day between the two
        days[2]: [
            an_event(9, occurred_at=f"{days[1]}T05:00:00Z"),
            an_event(3, occurred_at=f"{days[1]}T01:00:00Z"),
            an_event(5, occurred_at=f"{days[2]}T01:00:00Z"),
        ],
    }
    seen = set()
    for number, order in enumerate(itertools.permutations(days)):
        settings = replace(shop, lake=str(tmp_path / f"lake{number}"))
        with db.connect(settings) as connection:
            connection.execute(sa.text("TRUNCATE quality.file_account, quality.clean_day CASCADE"))
        for day in order:
            receive(settings, tmp_path, received[day], day=day, name="e.csv", max_rejected_ratio=0.0)
        with db.connect(settings) as connection:
            rows = connection.execute(sa.text("SELECT day, rows, content_digest FROM quality.clean_day WHERE rows > 0"))
            seen.add(tuple(sorted(map(tuple, rows.all()))))
    assert len(seen) == 1
    assert [rows for _, rows, _ in next(iter(seen))] == [4, 1, 1]


def test_a_file_that_comes_again_replaces_itself(shop, tmp_path):
    receive(shop, tmp_path, [an_event(1), an_event(2)])
    report = receive(shop, tmp_path, [an_event(2), an_event(3), an_event(4)])
    assert report.accounts[0].rows_read == 3
    clean = Lake(shop.lake_root, shop.shop).snapshot().read("clean")
    assert sorted(clean["event_id"].to_pylist()) == ["e00002", "e00003", "e00004"]
    with db.connect(shop) as connection:
        assert connection.execute(sa.text("SELECT rows_read, status FROM quality.file_account")).all() == [
            (3, "published")
        ]


def test_a_replaced_file_takes_its_late_events_away_again(shop, tmp_path):
    before = DAY - timedelta(days=1)
    receive(shop, tmp_path, [an_event(1, occurred_at=f"{before}T10:00:00Z"), an_event(2)])
    report = receive(shop, tmp_path, [an_event(2)])
    assert report.days_published == (before, DAY)
    assert Lake(shop.lake_root, shop.shop).snapshot().partitions("clean") == [f"day={DAY}"]


def test_a_refused_day_keeps_what_was_published_and_says_why(shop, tmp_path):
    receive(shop, tmp_path, [an_event(1), an_event(2)])
    published, tables = Lake(shop.lake_root, shop.shop).snapshot(), dump(shop)
    bad = [an_event(1), an_event(2, user_id=""), an_event(3, occurred_at="2026-08-25T00:00:00Z")]
    with pytest.raises(DayRefused) as caught:
        receive(shop, tmp_path, bad, max_rejected_ratio=0.3)
    assert str(caught.value).splitlines()[:2] == [
        "2026-08-21: 2 of 3 events rejected (66.67 %, allowed 30.00 %).",
        "By rule: user_missing 1, occurred_outside_window 1. Rows: quarantine/received=2026-08-21/",
    ]
    assert "stays" in str(caught.value)
    after = Lake(shop.lake_root, shop.shop).snapshot()
    assert after.tables["clean"] == published.tables["clean"]
    assert after.tables["accepted"] == published.tables["accepted"]
    assert after.rows("quarantine", f"received={DAY}") == 2
    assert dump(shop)["quality.clean_day"] == tables["quality.clean_day"]
    with db.connect(shop) as connection:
        rows = connection.execute(sa.text("SELECT status, rows_read FROM quality.file_account ORDER BY status")).all()
    assert rows == [("published", 2), ("refused", 3)]
    receive(shop, tmp_path, [an_event(1), an_event(2), an_event(3)])
    with db.connect(shop) as connection:
        assert connection.execute(sa.text("SELECT status, rows_read FROM quality.file_account")).all() == [
            ("published", 3)
        ]


def test_a_second_run_changes_no_row_and_no_file(shop, tmp_path):
    path = write_file(tmp_path, "events.csv", [*SOME_EVENTS, csv_bad()])
    first, _ = daily.run_day(DAY, shop, path=str(path), max_rejected_ratio=0.2)
    tables, clean = dump(shop), Lake(shop.lake_root, shop.shop).snapshot().tables["clean"]
    second, refreshed = daily.run_day(DAY, shop, path=str(path), max_rejected_ratio=0.2)
    assert second.accounts == first.accounts
    assert refreshed.rows_changed == 0
    assert dump(shop) == tables
    assert Lake(shop.lake_root, shop.shop).snapshot().tables["clean"] == clean


def csv_bad() -> dict:
    return an_event(77, user_id=RAW_USER, price="free")


def test_raw_ids_are_nowhere_after_the_door(shop, tmp_path, capfd, caplog):
    caplog.set_level("DEBUG")
    incoming = tmp_path / "incoming"
    events = [
        *SOME_EVENTS,
        an_event(50, anonymous_id=RAW_DEVICE),
        csv_bad(),
        an_event(51, user_id=RAW_USER, brand="x" * 300),
    ]
    path = write_file(incoming, "events.csv", events)
    daily.run_day(DAY, shop, path=str(path), max_rejected_ratio=0.2)
    with pytest.raises(DayRefused) as refused:
        daily.validate_events(DAY, shop, path=str(path), max_rejected_ratio=0.0)
    said = capfd.readouterr()
    texts = {
        "stdout": said.out,
        "stderr": said.err,
        "log": caplog.text,
        "error": str(refused.value),
        "tables": repr(dump(shop)),
    }
    files = {str(each): each.read_bytes() for each in shop.home.rglob("*") if each.is_file()}
    assert any("data_docs" in name for name in files)
    for raw in (RAW_USER, RAW_DEVICE):
        assert [name for name, text in texts.items() if raw in text] == []
        assert [name for name, content in files.items() if raw.encode() in _plain(name, content)] == []


def _plain(name: str, content: bytes) -> bytes:
    """A file's bytes, with a Parquet file's values unpacked."""
    if not name.endswith(".parquet"):
        return content
    import pyarrow.parquet as pq

    return content + repr(pq.read_table(name, partitioning=None).to_pydict()).encode()


def test_received_files_and_lake_in_an_object_store(shop, tmp_path):
    import fsspec

    settings = replace(shop, lake=f"memory://lake-{tmp_path.name}")
    received = f"memory://drop-{tmp_path.name}/{DAY}/events.csv"
    fsspec.filesystem("memory").pipe_file(received, csv_text(SOME_EVENTS).encode())
    report, refreshed = daily.run_day(DAY, settings, path=received.rsplit("/", 1)[0], max_rejected_ratio=0.2)
    assert report.accounts[0].accepted == 43
    assert refreshed.users == 2
    tables = dump(settings)
    daily.run_day(DAY, settings, path=received, max_rejected_ratio=0.2)
    assert dump(settings) == tables


def test_several_files_of_a_day_are_one_day(shop, tmp_path):
    write_file(tmp_path / "in", "part-1.csv", [an_event(1), an_event(2)])
    write_file(tmp_path / "in" / "more", "part-2.csv.gz", [an_event(2), an_event(3)])
    write_file(tmp_path / "in", ".hidden", b"not a day's file")
    report = daily.validate_events(DAY, shop, path=str(tmp_path / "in"))
    assert [account.file for account in report.accounts] == ["more/part-2.csv.gz", "part-1.csv"]
    with db.connect(shop) as connection:
        row = connection.execute(sa.text("SELECT rows_accepted, duplicate, rows FROM quality.clean_day")).one()
    assert tuple(row) == (4, 1, 3)


def test_numbers_of_lines_count_blank_ones_and_the_header(offline, tmp_path):
    content = f"{HEADER}\n\n{csv_line(an_event(1))}\n\r\n{csv_line(an_event(2, user_id=''))}".encode()
    door = door_of(offline)
    intake = taken_in(write_file(tmp_path, "events.csv", content), door)
    assert broken_rules(intake, door) == {5: "user_missing"}
    assert intake.account.rows_read == 2
