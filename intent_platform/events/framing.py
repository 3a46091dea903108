"""Bytes → lines → CSV fields, vectorised: the fast way takes whole blocks, the slow way judges single lines.

Both ways give the same verdicts (a test compares them); the slow one is for quotes that span or break lines.
"""

import codecs
import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from intent_platform.errors import FileUnreadable

ROW_TORN = "row_torn"
ENCODING_BROKEN = "encoding_broken"
ROW_TOO_LONG = "row_too_long"

BLOCK_BYTES = 8 << 20
MAX_ROW_BYTES = 1 << 20
KEPT_OF_LONG_ROW_BYTES = 1 << 16
MAX_LINES_IN_ROW = 64  # a quote that stays open for longer is a torn row, not a long text
NEWLINE, RETURN = 10, 13
BYTE_ORDER_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Rows inside one block: byte ranges without their line ends, file line numbers, and what is wrong with them."""

    block: bytes
    starts: np.ndarray  # int64 offsets into block
    ends: np.ndarray
    numbers: np.ndarray  # int64, 1-based line in the file
    broken: np.ndarray  # object: name of the rule, or None

    def __len__(self) -> int:
        return len(self.starts)

    def text(self, position: int) -> bytes:
        return self.block[self.starts[position] : self.ends[position]]

    def take(self, chosen: np.ndarray) -> "Lines":
        arrays = {name: getattr(self, name)[chosen] for name in ("starts", "ends", "numbers", "broken")}
        return replace(self, **arrays)

    def mark(self, which: np.ndarray, rule: str) -> "Lines":
        """The same lines, where those of `which` that were fine so far break `rule`."""
        broken = self.broken.copy()
        broken[which & (broken == None)] = rule  # noqa: E711  (element-wise)
        return replace(self, broken=broken)

    @property
    def is_fine(self) -> np.ndarray:
        return self.broken == None  # noqa: E711  (element-wise)

    def broken_rules(self) -> pa.Array:
        return pa.array(self.broken, pa.string())

    def readable_texts(self) -> pa.Array:
        """Each line as UTF-8 text; NULL where the line is broken already."""
        fine = self.is_fine
        return pa.array([self.text(i).decode() if fine[i] else None for i in range(len(self))], pa.string())


def blocks_of_lines(read: Callable[[int], bytes], *, encoding: str, quote: str) -> Iterator[Lines]:
    """Cut a stream into blocks that end at a row's end. Blank lines are no rows, yet they count for numbering."""
    next_number = 1
    for block in _whole_row_blocks(_utf8_reader(read, encoding), quote.encode()):
        if block:
            lines, next_number = _frame(block, next_number)
            if len(lines):
                yield _mark_bytes(lines)


def lines_of_texts(texts: Sequence[bytes], numbers: Sequence[int]) -> Lines:
    """Single rows as one block; they are judged as if they came from a file."""
    lengths = np.array([len(each) for each in texts], dtype=np.int64)
    starts = np.concatenate(([0], np.cumsum(lengths + 1)[:-1])).astype(np.int64)
    return _mark_bytes(
        Lines(
            block=b"".join(each + b"\n" for each in texts),
            starts=starts,
            ends=starts + lengths,
            numbers=np.array(numbers, dtype=np.int64),
            broken=np.full(len(texts), None, dtype=object),
        )
    )


def take_header(lines: Lines, delimiter: str, quote: str) -> tuple[tuple[str, ...], Lines]:
    """The first row as column names, and the rows after it; FileUnreadable when it is no row of a CSV."""
    text = lines.text(0).decode("utf-8", errors="replace")
    try:
        names = next(csv.reader([text], delimiter=delimiter, **_quoting(quote)), [])
    except csv.Error as error:
        raise FileUnreadable(f"The header cannot be taken apart: {error}. Nothing was taken; mend its line.") from error
    return tuple(name.strip() for name in names), lines.take(np.arange(1, len(lines)))


def parse_csv(
    lines: Lines, *, header: Sequence[str], wanted: Sequence[str], delimiter: str, quote: str, null_words: Sequence[str]
) -> tuple[Lines, dict[str, pa.Array]]:
    """Fields of the wanted columns, one array each, aligned with the returned lines.

    Some lines may have been joined, and they come in another order: those that cannot be taken apart are last, so that
    the parser's columns are used as they are.
    """
    lines, is_odd = _join_quoted(lines, len(header), delimiter, quote)
    is_fast = lines.is_fine & ~is_odd & ~_has_inner_return(lines)
    fast = _parse_fast(lines.take(np.flatnonzero(is_fast)), header, wanted, delimiter, quote, null_words)
    if fast is None:  # the parser saw other rows than we: judge each line by itself
        is_fast[:] = False
        torn, table = np.zeros(0, bool), pa.table({name: pa.array([], pa.string()) for name in wanted})
    else:
        torn, table = fast
    slow_at = np.flatnonzero(lines.is_fine & ~is_fast)
    slow = [_parse_slow(lines.text(int(i)), len(header), delimiter, quote) for i in slow_at]
    is_row = np.array([row is not None for row in slow], dtype=bool)
    by_hand = [row for row in slow if row is not None]

    readable = np.concatenate([np.flatnonzero(is_fast)[~torn], slow_at[is_row]])
    is_unreadable = np.ones(len(lines), bool)
    is_unreadable[readable] = False
    unreadable = np.flatnonzero(is_unreadable)
    columns = {}
    for name in wanted:
        position = header.index(name)
        texts = [None if row[position] in null_words else row[position] for row in by_hand]
        rest = pa.array(texts + [None] * len(unreadable), pa.string())
        columns[name] = pa.concat_arrays([*table[name].chunks, rest])
    return lines.mark(is_unreadable, ROW_TORN).take(np.concatenate([readable, unreadable])), columns


def _utf8_reader(read: Callable[[int], bytes], encoding: str) -> Callable[[int], bytes]:
    """UTF-8 whatever the file is written in; bytes that fit neither stay as they are, for the rule to find."""
    if codecs.lookup(encoding).name == "utf-8":
        return _without_byte_order_mark(read)
    decoder = codecs.getincrementaldecoder(encoding)(errors="surrogateescape")

    def read_recoded(size: int) -> bytes:
        chunk = read(size)
        text = decoder.decode(chunk, final=not chunk)
        return text.encode("utf-8", "surrogateescape")

    return read_recoded


def _without_byte_order_mark(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    is_first = True

    def read_on(size: int) -> bytes:
        nonlocal is_first
        chunk = read(size)
        if is_first:
            is_first = False
            if chunk[:2] in BYTE_ORDER_MARKS:
                raise FileUnreadable('The file begins with a UTF-16 mark; set file.encoding = "utf-16" in its mapping.')
            chunk = chunk.removeprefix(codecs.BOM_UTF8)
        return chunk

    return read_on


def _whole_row_blocks(read: Callable[[int], bytes], quote: bytes) -> Iterator[bytes]:
    """Blocks that end after a line end outside quotes; the last may end without. A line beyond all bounds is cut."""
    carried = b""
    while chunk := read(BLOCK_BYTES):
        block = carried + chunk
        if len(block) > MAX_ROW_BYTES and b"\n" not in block:
            block = _cut_long_line(block, read)
        cut = block.rfind(b"\n") + 1
        if quote and cut:
            cut = _before_open_quote(block, cut, quote)
        carried = block[cut:]
        yield block[:cut]
    yield carried


def _cut_long_line(block: bytes, read: Callable[[int], bytes]) -> bytes:
    """Skip to the line's end; what is kept is still longer than allowed, so that its rule finds it."""
    kept = block[: MAX_ROW_BYTES + 1]
    while chunk := read(BLOCK_BYTES):
        end = chunk.find(b"\n")
        if end >= 0:
            return kept + chunk[end:]
    return kept


def _before_open_quote(block: bytes, cut: int, quote: bytes) -> int:
    """`cut`, or the start of the last rows that a quote may span, so that a block's end tears none.

    Lines with an odd number of quotes come in clusters, less than MAX_LINES_IN_ROW lines apart; a row never spans two
    clusters. A cluster without a near beginning (every row has a quoted newline) is cut where all quotes are closed.
    """
    safe, tail_start, even_lines = cut, cut, 0
    while tail_start and cut - tail_start <= MAX_ROW_BYTES and even_lines < MAX_LINES_IN_ROW:
        line_start = block.rfind(b"\n", 0, tail_start - 1) + 1
        even_lines += 1
        if block.count(quote, line_start, tail_start) % 2:
            safe, even_lines = line_start, 0
        tail_start = line_start
    if tail_start == 0 or even_lines == MAX_LINES_IN_ROW:
        return safe
    return _last_closed_line(block, cut, quote)


def _last_closed_line(block: bytes, cut: int, quote: bytes) -> int:
    """The end of the last line up to which quotes come in pairs, or `cut` when no such line is near."""
    is_open, tail_start = block.count(quote, 0, cut) % 2, cut
    for _ in range(MAX_LINES_IN_ROW):
        if not is_open:
            return tail_start
        line_start = block.rfind(b"\n", 0, tail_start - 1) + 1
        is_open = (is_open + block.count(quote, line_start, tail_start)) % 2
        tail_start = line_start
    return cut


def _frame(block: bytes, first_number: int) -> tuple[Lines, int]:
    """The block's rows, and the number of the line after it."""
    data = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(data == NEWLINE)
    if not block.endswith(b"\n"):
        ends = np.append(ends, len(data))
    starts = np.concatenate(([0], ends[:-1] + 1)).astype(np.int64)
    has_return = (ends > starts) & (data[np.maximum(ends - 1, 0)] == RETURN)
    ends = ends - has_return
    next_number = first_number + len(starts)
    numbers = np.arange(first_number, next_number, dtype=np.int64)
    is_row = ends > starts
    broken = np.full(int(is_row.sum()), None, dtype=object)
    lines = Lines(block=block, starts=starts[is_row], ends=ends[is_row], numbers=numbers[is_row], broken=broken)
    return lines, next_number


def _mark_bytes(lines: Lines) -> Lines:
    """Rows too long, and rows that are not UTF-8 or hold a NUL, which no database takes."""
    lines = lines.mark(lines.ends - lines.starts > MAX_ROW_BYTES, ROW_TOO_LONG)
    if lines.broken.any():
        kept_ends = np.minimum(lines.ends, lines.starts + KEPT_OF_LONG_ROW_BYTES)
        lines = replace(lines, ends=np.where(lines.is_fine, lines.ends, kept_ends))
    bad = np.zeros(len(lines), bool)
    for offset in _bad_bytes(lines.block):
        bad[max(int(np.searchsorted(lines.starts, offset, side="right")) - 1, 0)] = True
    return lines.mark(bad, ENCODING_BROKEN) if bad.any() else lines


def _bad_bytes(block: bytes) -> Iterator[int]:
    """One offset for each line that has bytes which are not UTF-8, or a NUL."""
    yield from _undecodable(block)
    position = block.find(b"\0")
    while position >= 0:
        yield position
        line_end = block.find(b"\n", position)
        position = block.find(b"\0", line_end) if line_end >= 0 else -1


def _undecodable(block: bytes) -> Iterator[int]:
    start = 0
    view = memoryview(block)
    while start < len(block):
        try:
            codecs.utf_8_decode(view[start:], "strict", True)
            return
        except UnicodeDecodeError as error:
            yield start + error.start
            line_end = block.find(b"\n", start + error.start)
            if line_end < 0:
                return
            start = line_end + 1


def _join_quoted(lines: Lines, width: int, delimiter: str, quote: str) -> tuple[Lines, np.ndarray]:
    """Join lines that one quoted text spans. Returns the lines and which of them the slow way must judge."""
    if not quote or quote.encode() not in lines.block:
        return lines, np.zeros(len(lines), bool)
    is_odd = _has_odd_quotes(lines, quote)
    odd = np.flatnonzero(is_odd)
    keep = np.ones(len(lines), bool)
    ends = lines.ends.copy()
    position = 0
    while position + 1 < len(odd):
        first, last = odd[position], odd[position + 1]
        text = lines.block[lines.starts[first] : lines.ends[last]]
        if last - first < MAX_LINES_IN_ROW and _parse_slow(text, width, delimiter, quote) is not None:
            ends[first] = lines.ends[last]
            keep[first + 1 : last + 1] = False
            position += 1
        position += 1
    chosen = np.flatnonzero(keep)
    return replace(lines, ends=ends).take(chosen), is_odd[chosen]


def _has_odd_quotes(lines: Lines, quote: str) -> np.ndarray:
    at = np.flatnonzero(np.frombuffer(lines.block, np.uint8) == ord(quote))
    counts = np.searchsorted(at, lines.ends) - np.searchsorted(at, lines.starts)
    return counts % 2 == 1


def _has_inner_return(lines: Lines) -> np.ndarray:
    """Lines with a carriage return before their end, where the fast parser would begin a row."""
    if b"\r" not in lines.block:
        return np.zeros(len(lines), bool)
    at = np.flatnonzero(np.frombuffer(lines.block, np.uint8) == RETURN)
    return np.searchsorted(at, lines.ends) > np.searchsorted(at, lines.starts)


def _parse_fast(
    lines: Lines, header: Sequence[str], wanted: Sequence[str], delimiter: str, quote: str, null_words: Sequence[str]
) -> tuple[np.ndarray, pa.Table] | None:
    """(which lines have another number of fields, a table of the others), or None if the parser disagrees on rows."""
    torn_numbers: list[int] = []

    def skip(row: pa_csv.InvalidRow) -> str:
        torn_numbers.append(row.number)
        return "skip"

    data = _contiguous(lines)
    if not data:
        return np.zeros(0, bool), pa.table({name: pa.array([], pa.string()) for name in wanted})
    if data.startswith(codecs.BOM_UTF8):  # which the parser would drop; here it is part of a row
        return None
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(data),
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=list(header)),
            parse_options=pa_csv.ParseOptions(
                delimiter=delimiter, quote_char=quote or False, invalid_row_handler=skip, ignore_empty_lines=False
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()),
                include_columns=list(wanted),
                null_values=list(null_words),
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
                check_utf8=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows + len(torn_numbers) != len(lines):
        return None
    torn = np.zeros(len(lines), bool)
    torn[np.asarray(torn_numbers, dtype=np.int64) - 1] = True
    return torn, table


def _contiguous(lines: Lines) -> bytes:
    """The lines one after another, each with a line end; a slice of the block when nothing lies between them."""
    if not len(lines):
        return b""
    line_end = lines.block[lines.ends[-1] : lines.ends[-1] + 2]
    if lines.numbers[-1] - lines.numbers[0] + 1 == len(lines) and b"\n" in line_end:
        return lines.block[lines.starts[0] : lines.ends[-1] + line_end.index(b"\n") + 1]
    data = np.frombuffer(lines.block + b"\n", np.uint8)
    stops = lines.ends + 1
    change = np.zeros(len(data) + 1, np.int8)
    np.add.at(change, lines.starts, 1)
    np.add.at(change, stops, -1)
    chosen = data[np.cumsum(change[:-1], dtype=np.int8).view(bool)]
    chosen[np.cumsum(stops - lines.starts) - 1] = NEWLINE
    return chosen.tobytes()


def _parse_slow(text: bytes, width: int, delimiter: str, quote: str) -> list[str] | None:
    """The fields of one row by the standard library's strict parser, or None if they are not `width` fields."""
    try:
        rows = list(
            csv.reader(io.StringIO(text.decode(), newline=""), delimiter=delimiter, strict=True, **_quoting(quote))
        )
    except (csv.Error, UnicodeDecodeError):
        return None
    return rows[0] if len(rows) == 1 and len(rows[0]) == width else None


def _quoting(quote: str) -> dict:
    return {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
