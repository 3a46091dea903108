"""A digest of events that does not depend on their order, nor on the files they lie in.

Every row gets a 64-bit hash over the contract's fields, in order; a set of rows is the sum of their hashes. Sums of
parts add up to the sum of the whole, so a day that is made of parts is digested without being read. The functions take
Arrow, which Spark's mapInArrow hands over as well. See docs/decisions/0006.
"""

import numpy as np
import pyarrow as pa

from intent_platform.events.contract import EVENT_FIELDS

MODULUS = 2**64
WORD_BYTES = 8
FIRST_BYTES = np.array([2 ** (8 * length) - 1 for length in range(WORD_BYTES + 1)], dtype=np.uint64)
"""Masks that keep a word's first 0 … 8 bytes (the words are little-endian)."""


def content_sum(events: pa.Table) -> int:
    """Sum of the rows' hashes modulo 2**64. A NULL text counts as an empty one."""
    if not events.num_rows:
        return 0
    hashes = np.zeros(events.num_rows, np.uint64)
    for each in EVENT_FIELDS:
        column = events[each.name].combine_chunks()
        is_text = pa.types.is_string(each.kind)
        hashes = _with_text(hashes, column) if is_text else _mixed(hashes ^ _number_bits(column))
    return int(hashes.sum(dtype=np.uint64))


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """MurmurHash3's 64-bit finaliser: https://github.com/aappleby/smhasher/wiki/MurmurHash3"""
    for factor in (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)):
        hashes = (hashes ^ (hashes >> np.uint64(33))) * factor
    return hashes ^ (hashes >> np.uint64(33))


def _number_bits(column: pa.Array) -> np.ndarray:
    """The bits of times as microseconds and of numbers as doubles, where NULL is NaN."""
    kind = pa.int64() if pa.types.is_timestamp(column.type) else pa.float64()
    return column.cast(kind).to_numpy(zero_copy_only=False).view(np.uint64)


def _with_text(hashes: np.ndarray, column: pa.Array) -> np.ndarray:
    """Mix in each text's length and then its bytes, a word at a time, as long as a row has some left."""
    starts, left, words = _as_words(column)
    hashes = _mixed(hashes ^ left.view(np.uint64) ^ _next_words(words, starts, left))
    unfinished = np.flatnonzero(left > WORD_BYTES)
    while len(unfinished):
        starts[unfinished] += WORD_BYTES
        left[unfinished] -= WORD_BYTES
        following = _next_words(words, starts[unfinished], left[unfinished])
        hashes[unfinished] = _mixed(hashes[unfinished] ^ following)
        unfinished = unfinished[left[unfinished] > WORD_BYTES]
    return hashes


def _next_words(words: np.ndarray, starts: np.ndarray, left: np.ndarray) -> np.ndarray:
    return words[starts] & FIRST_BYTES[np.minimum(left, WORD_BYTES)]


def _as_words(column: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each text starts, its length in bytes, and the word (uint64) that begins at each byte of them all."""
    _, offsets, content = column.buffers()
    ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    first, last = ends[0], ends[-1]
    texts = np.zeros(last - first + WORD_BYTES, np.uint8)
    texts[: last - first] = np.frombuffer(content, np.uint8)[first:last] if last > first else 0
    words = np.ndarray(last - first + 1, "<u8", texts, strides=(1,))
    lengths = np.diff(ends)
    if column.null_count:
        lengths[column.is_null().to_numpy(zero_copy_only=False)] = 0
    return ends[:-1] - first, lengths, words
