"""Received files that no shop should send: strategies for generated junk, from torn rows to bombs of bounded size."""

import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from hypothesis import strategies as st
from received import COLUMNS, HEADER, an_event, csv_line

GOOD = csv_line(an_event()).encode()
BOMB_BYTES = 3 << 20  # unpacked: longer than a row may be, and soon read

CSV_ROWS = st.one_of(
    st.sampled_from(
        [
            GOOD,
            GOOD.replace(b"e00001", b"e00002"),
            csv_line(an_event(3, query_text='a "b"\nc')).encode(),
            GOOD[:-9],
            GOOD.replace(b"19.5", b"9" * 400),
            GOOD.replace(b"19.5", b"NaN"),
            GOOD.replace(b"2026", b"99999999"),
            GOOD.replace(b"shoes", b'"'),
            GOOD.replace(b"shoes", b"\0"),
            GOOD.replace(b"shoes", b"\r"),
            GOOD.replace(b"shoes", b"x" * 3000),
            GOOD.replace(b"shoes", b"\xed\xa0\x80"),  # a lone surrogate
            GOOD.replace(b"shoes", b"\xf4\x90\x80\x80"),  # beyond the last code point
            GOOD.replace(b"2026-08-21", b"2026-02-30"),
            GOOD.replace(b"19.5", b"-1e-400"),
            GOOD.replace(b"19.5", b"0x1F"),
            b'"',
            b"\xff\xfe",
            b"",
            b",",
            b",,,,,,,,,,,,,,,,",
            "﻿".encode(),
        ]
    ),
    st.binary(max_size=40),
)
JSON_ROWS = st.one_of(
    st.sampled_from(
        [
            json.dumps(an_event()).encode(),
            json.dumps(an_event(2, price="x")).encode(),
            json.dumps({**an_event(3), "price": 1e308, "quantity": 2**80}).encode(),
            json.dumps({**an_event(4), "user_id": {"nested": [1, None]}}).encode(),
            json.dumps({**an_event(5), "query_text": "\0"}).encode(),
            json.dumps({**an_event(6), "query_text": "\ud800"}).encode(),
            json.dumps(an_event(7)).encode()[:-9],
            json.dumps(an_event(8)).encode().replace(b'"19.5"', b"9" * 400),
            json.dumps(an_event(9)).encode().replace(b'"19.5"', b"1e999"),
            b'{"event_type": "view", "event_type": "click"}',
            b"[" * 2000,
            b'{"a":' * 2000 + b"1" + b"}" * 2000,
            b"null",
            b"[]",
            b"{}",
            b"\xff\xfe",
            b"",
        ]
    ),
    st.binary(max_size=40),
)
LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\r"])
BOMBS = st.sampled_from(
    [
        b"x" * BOMB_BYTES,
        b"\n" * BOMB_BYTES,
        b'"' * BOMB_BYTES,
        b"," * BOMB_BYTES,
        b"\0" * BOMB_BYTES,
        b'"\n' * (BOMB_BYTES // 2),
        (GOOD + b"\n") * (BOMB_BYTES // len(GOOD)),
        b"view,torn\n" * (BOMB_BYTES // 100),
    ]
)
CELLS = st.one_of(st.none(), st.sampled_from(["view", "2026-08-21T10:00:00Z", "9" * 400, "\0", "x" * 3000]), st.text())


@st.composite
def junk_csv(draw: st.DrawFn) -> bytes:
    """A native CSV with its header, rows of any kind, and a good row at the end."""
    rows = draw(st.lists(st.tuples(CSV_ROWS, LINE_ENDS), min_size=1, max_size=12))
    return HEADER.encode() + b"\n" + b"".join(row + end for row, end in rows) + b"\n" + GOOD


@st.composite
def junk_parquet(draw: st.DrawFn) -> bytes:
    """A Parquet file of the native columns, with texts or typed values."""
    size = draw(st.integers(0, 5))
    columns = {name: pa.array(draw(st.lists(CELLS, min_size=size, max_size=size)), pa.string()) for name in COLUMNS}
    numbers = st.one_of(st.none(), st.floats(), st.just(1e300))
    if draw(st.booleans()):
        columns["price"] = pa.array(draw(st.lists(numbers, min_size=size, max_size=size)), pa.float64())
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


@st.composite
def junk_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """(name, content) of a received file: any format, packed or not, now and then cut short or nothing but noise."""
    ending = draw(st.sampled_from(["csv", "csv", "csv", "jsonl", "jsonl", "parquet"]))
    content = draw({"csv": junk_csv(), "jsonl": _junk_json_lines(), "parquet": junk_parquet()}[ending])
    is_bomb = ending == "csv" and draw(st.integers(0, 39)) == 39
    if is_bomb:
        content = HEADER.encode() + b"\n" + draw(BOMBS) + b"\n" + GOOD
    if ending != "parquet":
        packing, pack = draw(st.sampled_from(PACKINGS[1:] if is_bomb else PACKINGS))
        ending, content = ending + packing, pack(content)
    cut = draw(st.sampled_from([None] * 7 + [0.5]))
    if cut:
        content = content[: int(len(content) * cut)]
    noise = draw(st.sampled_from([None] * 15 + [True]))
    return f"junk.{ending}", draw(st.binary(max_size=200)) if noise else content


PACKINGS = [("", bytes), (".gz", gzip.compress), (".zst", zstandard.compress)]


@st.composite
def _junk_json_lines(draw: st.DrawFn) -> bytes:
    rows = draw(st.lists(st.tuples(JSON_ROWS, LINE_ENDS), min_size=1, max_size=12))
    return b"".join(row + end for row, end in rows) + json.dumps(an_event()).encode()
