"""Character n-grams with TF-IDF: what carries model numbers, misspellings, and languages the encoder does not know."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from safetensors.numpy import load_file, save_file
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import FeatureHasher, HashingVectorizer

BUCKETS = 2**14
"""Hashed n-grams need no vocabulary file; at this size the demo's titles collide seldom."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lexical:
    """TF-IDF weights of hashed character n-grams, and their projection to a few dimensions, fitted on item texts."""

    idf: np.ndarray  # float32 (BUCKETS,)
    directions: np.ndarray  # float32 (BUCKETS, dimensions): the leading right singular vectors

    @property
    def dimensions(self) -> int:
        return self.directions.shape[1]

    def sparse(self, texts: list[str]) -> sp.csr_matrix:
        """Unit-length TF-IDF rows; an empty text is a row of zeros."""
        weighted = _count_ngrams(texts)
        weighted.data = np.log1p(weighted.data) * self.idf[weighted.indices]
        row = np.repeat(np.arange(len(texts)), np.diff(weighted.indptr))
        length = np.sqrt(np.bincount(row, weights=weighted.data**2, minlength=len(texts)))
        weighted.data /= np.maximum(length, 1e-12)[row].astype(np.float32)
        return weighted

    def dense(self, texts: list[str]) -> np.ndarray:
        """Unit-length float32 rows of `dimensions`; a text of unknown characters only is a row of zeros."""
        return unit_rows(self.sparse(texts) @ self.directions)

    @cached_property
    def digest_bytes(self) -> bytes:
        return self.idf.tobytes() + self.directions.tobytes()

    def save(self, path: Path) -> None:
        save_file({"idf": self.idf, "directions": np.ascontiguousarray(self.directions)}, path)

    @classmethod
    def load(cls, path: Path) -> "Lexical":
        return cls(**load_file(path))


def fit_lexical(texts: list[str], *, dimensions: int = 64, seed: int = 7) -> Lexical:
    """Learn n-gram weights and directions from item texts; with few texts, as many directions as they span."""
    counts = _count_ngrams(texts)
    frequency = np.bincount(counts.indices, minlength=BUCKETS)
    idf = (np.log((1 + len(texts)) / (1 + frequency)) + 1).astype(np.float32)
    blank = Lexical(idf=idf, directions=np.zeros((BUCKETS, 1), np.float32))
    wanted = min(dimensions, len(texts) - 1)
    if wanted < 1:
        return blank
    directions = TruncatedSVD(wanted, random_state=seed).fit(blank.sparse(texts)).components_.T.astype(np.float32)
    padded = np.zeros((BUCKETS, dimensions), np.float32)  # one width for every shop, so networks can warm-start
    padded[:, :wanted] = directions
    return Lexical(idf=idf, directions=padded)


def unit_rows(matrix: np.ndarray) -> np.ndarray:
    """Scale rows to length 1; rows of zeros stay."""
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return (matrix / np.maximum(lengths, 1e-12)).astype(np.float32)


def term_counter(buckets: int, **analysis: Any) -> Callable[[list[str]], sp.csr_matrix]:
    """What tells float32 (texts, buckets): how often each hashed term occurs. analysis: as of HashingVectorizer, whose
    own transform makes both of these anew at each call."""
    analyse = HashingVectorizer(**analysis).build_analyzer()
    hasher = FeatureHasher(buckets, input_type="string", alternate_sign=False, dtype=np.float32)

    def count(texts: list[str]) -> sp.csr_matrix:
        if not texts:  # a log without searches
            return sp.csr_matrix((0, buckets), dtype=np.float32)
        return hasher.transform(map(analyse, texts))

    return count


# Single characters carry Chinese, where a word is one or two of them.
_count_ngrams = term_counter(BUCKETS, analyzer="char_wb", ngram_range=(1, 4))
