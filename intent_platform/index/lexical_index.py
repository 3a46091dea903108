"""Which items hold a query's words and letters: Okapi BM25 (Robertson & Zaragoza 2009) over two hashed vocabularies.

Words find what was spelt right, character n-grams the rest: misspelt words, parts of model numbers, Chinese.
"""

import re
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from intent_platform.model.lexical import term_counter

WORD_BUCKETS, LETTER_BUCKETS = 2**17, 2**14
BUCKETS = WORD_BUCKETS + LETTER_BUCKETS

SATURATION = 1.2  # k₁
_TOGETHER = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_LETTER = rf"[^\W{_TOGETHER}]"
_WORD = re.compile(rf"({_LETTER}+(?:[.\-]{_LETTER}+)*)|([{_TOGETHER}]+)")

LENGTH_WEIGHT = 0.3  # b: low, because a long title is no worse an answer (docs/lab-book.md)


@dataclass(frozen=True, kw_only=True, eq=False)
class LexicalIndex:
    """Weights of N items' terms, ready to be asked."""

    postings: sp.csr_matrix  # float32 (BUCKETS, N): term by item
    rarity: np.ndarray  # float32 (BUCKETS,): inverse document frequency

    def scores(self, queries: list[str]) -> np.ndarray:
        """float32 (Q, N): how much of a query's words and of its letters an item holds, about 1 each for all of it."""
        terms = _terms(queries)
        terms.data[:] = 1.0
        weights = terms.multiply(self.rarity).tocsr()
        words, letters = weights[:, :WORD_BUCKETS].tocsr(), weights[:, WORD_BUCKETS:].tocsr()
        # The postings hold the rarity already: a query's term counts 1 / the sum of its query's rarities.
        shares = sp.hstack([_shares(terms[:, :WORD_BUCKETS], words), _shares(terms[:, WORD_BUCKETS:], letters)])
        return (shares.tocsr() @ self.postings).toarray()

    def arrays(self) -> dict[str, np.ndarray]:
        return {
            "lexical_data": self.postings.data,
            "lexical_indices": self.postings.indices.astype(np.int32),
            "lexical_indptr": self.postings.indptr.astype(np.int64),
            "lexical_rarity": self.rarity,
        }

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray], items: int) -> "LexicalIndex":
        csr = (arrays["lexical_data"], arrays["lexical_indices"], arrays["lexical_indptr"])
        return cls(postings=sp.csr_matrix(csr, shape=(BUCKETS, items)), rarity=arrays["lexical_rarity"])


def index_texts(texts: list[str]) -> LexicalIndex:
    """Count, weigh and turn around the terms of item texts."""
    terms = _terms(texts)
    holders = np.bincount(terms.indices, minlength=BUCKETS)
    rarity = np.log1p((len(texts) - holders + 0.5) / (holders + 0.5)).astype(np.float32)
    blocks = [_saturated(terms[:, :WORD_BUCKETS]), _saturated(terms[:, WORD_BUCKETS:])]
    weights = sp.hstack(blocks).multiply(rarity)
    return LexicalIndex(postings=weights.T.tocsr().astype(np.float32), rarity=rarity)


def _saturated(counts: sp.csr_matrix) -> sp.csr_matrix:
    """A term that is there twice counts little more than once, less so in a long text."""
    lengths = np.asarray(counts.sum(axis=1)).ravel()
    damping = SATURATION * (1 - LENGTH_WEIGHT + LENGTH_WEIGHT * lengths / max(lengths.mean(), 1e-9))
    owner = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    data = counts.data * (SATURATION + 1) / (counts.data + damping[owner])
    return sp.csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape)


def _shares(terms: sp.csr_matrix, weights: sp.csr_matrix) -> sp.csr_matrix:
    total = np.maximum(np.asarray(weights.sum(axis=1)).ravel(), 1e-9)
    return sp.diags(1.0 / total) @ terms


def _terms(texts: list[str]) -> sp.csr_matrix:
    """float32 counts (texts, BUCKETS): words, then letters."""
    lowered = [text.lower() for text in texts]
    return sp.hstack([_count_words(lowered), _count_letters(lowered)]).tocsr()


def _words(text: str) -> list[str]:
    """Words as they are written, "0.7" and "um-120" whole; of Chinese and Japanese every pair of neighbours."""
    found = []
    for word, written_together in _WORD.findall(text):
        pairs = [written_together[each : each + 2] for each in range(max(len(written_together) - 1, 1))]
        found.extend(pairs if written_together else [word])
    return found


_count_words = term_counter(WORD_BUCKETS, analyzer=_words)
_count_letters = term_counter(LETTER_BUCKETS, analyzer="char_wb", ngram_range=(1, 4))
