"""The items whose vectors have the largest dot product with a question: FAISS, its kind chosen by rule and measurement.

Above the flat kind, short codes are scanned (4 bits for two dimensions: product quantisation, Jégou et al. 2011, with
the fast scan of André et al. 2017) and the best of them are ranked again by their exact vectors, so that every score is
an exact dot product. docs/lab-book.md has the measurements that the rule comes from.

N items, D dimensions, Q questions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from intent_platform.errors import IndexInvalid
from intent_platform.settings import Settings

RECALL_AT = 20
WANTED_RECALL = 0.99
"""Below it more is looked at: deeper re-ranking, more lists, all codes, in the end a new training."""

Kind = Literal["flat", "lists", "codes"]
"""flat: exact. lists: codes in inverted lists, of which few are looked into. codes: all codes are scanned."""

RANKED_AGAIN = (3, 4, 6, 8, 12, 16, 32)
"""For k answers so many times k candidates of the codes are ranked by their exact vectors."""

LISTS_LOOKED_INTO = (0.01, 0.02, 0.05, 0.1)
"""Shares of all lists; where a tenth is not enough, questions lie across them and scanning all codes is cheaper."""

POINTS_PER_LIST = 64
"""At most so many vectors per list teach the lists where they lie; more take longer and change nothing measurable."""

FEWEST_CODED = 1_000
"""Below it an exact scan costs nothing, and codes have too little to learn from."""

RANKED_AT_ONCE = 500
"""Questions: their answers' vectors are some 20 MB."""

SHARED_FROM = 64
"""Questions from which threads share the work; for fewer they would wait for each other longer than they work."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Nearest:
    """An index that answers. A FAISS file of more than INTENT_INDEX_MEMORY_MIB stays on disk and is paged in."""

    kind: Kind
    faiss: Any
    vectors: np.ndarray  # float32 (N, D)
    threads: int
    is_paged: bool = False

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dimensions(self) -> int:
        return self.vectors.shape[1]

    def search(self, questions: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and positions (Q, min(k, N)), best first; position −1 where fewer were found."""
        if questions.ndim != 2 or questions.shape[1] != self.dimensions:
            raise ValueError(f"The questions are of shape {questions.shape}; this index takes (Q, {self.dimensions}).")
        with _threads(self.threads if len(questions) >= SHARED_FROM else 1):
            return self.faiss.search(np.ascontiguousarray(questions, np.float32), min(k, len(self)))

    def search_apart(self, questions: np.ndarray, k: int) -> np.ndarray:
        """Positions as `search` gives them, in an order that does not hang on what else is asked at once: in a large
        batch, sums of many products end in other last digits. Of equals the lower position comes first."""
        _, found = self.search(questions, 2 * k)
        ordered = [
            self._in_exact_order(questions[first : first + RANKED_AT_ONCE], found[first : first + RANKED_AT_ONCE])
            for first in range(0, len(questions), RANKED_AT_ONCE)
        ]
        return np.concatenate(ordered)[:, :k] if ordered else found[:, :k]

    def _in_exact_order(self, questions: np.ndarray, found: np.ndarray) -> np.ndarray:
        exact = np.einsum("qd,qkd->qk", questions.astype(np.float64), self.vectors[np.maximum(found, 0)])
        order = np.lexsort((found, np.where(found >= 0, -exact, np.inf)), axis=1)
        return np.take_along_axis(found, order, axis=1)

    def save(self, path: Path) -> None:
        """Write the index, and beside it, where codes are ranked again, the vectors, to be mapped into memory."""
        import faiss

        faiss.write_index(self.faiss, str(path))
        if self.kind != "flat":
            np.save(path.with_suffix(".npy"), self.vectors)

    @classmethod
    def load(cls, path: Path, kind: Kind, *, memory_mib: int, threads: int) -> "Nearest":
        """IndexInvalid when FAISS cannot read the file."""
        import faiss

        is_paged = path.stat().st_size > memory_mib << 20
        try:
            index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if is_paged else 0)
        except RuntimeError as error:
            raise IndexInvalid(f"{path} is not a whole FAISS index; build it again with `intent index`.") from error
        if kind == "flat":
            view = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)
            vectors = np.require(view, requirements="A")  # in a mapped file it may lie between two words
        else:
            vectors = np.load(path.with_suffix(".npy"), mmap_mode="c")  # writable in memory only, as torch wants it
        return cls(kind=kind, faiss=index, vectors=vectors, threads=threads, is_paged=is_paged)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """What FAISS may take; torch lives on the same OpenMP and gets its number back."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """How an index answers questions that it was not adjusted on, beside exact search."""

    recall_at_20: float
    score_error: float  # the largest difference of an answer's score from its exact dot product
    questions: int  # real ones that this was measured on; 0: mixtures of items stood in for them
    is_trained: bool  # False: it lives on codes and lists of the index before


def build_nearest(
    vectors: np.ndarray, questions: np.ndarray, settings: Settings, before: Nearest | None = None
) -> tuple[Nearest, Measured]:
    """An index over rows of `vectors`, adjusted on every second question and measured on the others.

    Questions of zeros only are not asked: everything answers them alike. before: an index over vectors of the same
    space, whose codes and lists are used again while they find enough.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    real = questions[questions.any(axis=1)]
    asked = real if len(real) > 1 else _between(vectors, settings.seed)
    with _threads(settings.threads):
        adjusted_on = Asked.of(vectors, asked[::2])
        for candidate in _candidates(vectors, settings, before):
            candidate.index.faiss.add(vectors)
            if _adjust(candidate.index, adjusted_on):
                break
        found = candidate.index
        measured_on = Asked.of(vectors, asked[1::2])
        scores, positions = found.search(measured_on.questions, RECALL_AT)
    return found, Measured(
        recall_at_20=measured_on.recall(positions),
        score_error=measured_on.score_error(scores, positions),
        questions=len(measured_on.questions) if len(real) > 1 else 0,
        is_trained=candidate.is_trained,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """Questions, and what an exact search answers."""

    vectors: np.ndarray  # float32 (N, D)
    questions: np.ndarray  # float32 (Q, D)
    floor: np.ndarray  # float32 (Q,): the score of each question's last exact answer

    @classmethod
    def of(cls, vectors: np.ndarray, questions: np.ndarray) -> "Asked":
        import faiss

        questions = np.ascontiguousarray(questions, np.float32)
        exact = faiss.knn(questions, vectors, min(RECALL_AT, len(vectors)), faiss.METRIC_INNER_PRODUCT)[0]
        return cls(vectors=vectors, questions=questions, floor=exact[:, -1])

    def recall(self, positions: np.ndarray) -> float:
        """Share of the exact answers among positions (Q, k); one that scores as the last exact one does counts too."""
        slack = 1e-5 * np.maximum(np.abs(self.floor), 1.0)
        is_near = (self._exact(positions) >= (self.floor - slack)[:, None]) & (positions >= 0)
        return float(is_near.mean())

    def score_error(self, scores: np.ndarray, positions: np.ndarray) -> float:
        return float(np.abs(scores - self._exact(positions))[positions >= 0].max(initial=0.0))

    def _exact(self, positions: np.ndarray) -> np.ndarray:
        return np.einsum("qd,qkd->qk", self.questions, self.vectors[np.maximum(positions, 0)])


def _between(vectors: np.ndarray, seed: int, count: int = 1_000) -> np.ndarray:
    """Where nobody has asked yet: half items as they are, half means of two, as shoppers lie between what they saw."""
    chance = np.random.default_rng(seed)
    known = np.flatnonzero(vectors.any(axis=1))
    known = known if len(known) else np.arange(len(vectors))
    one, two = known[chance.integers(0, len(known), (2, max(2, min(count, 2 * len(known)))))]
    two[: len(two) // 2] = one[: len(two) // 2]
    return np.ascontiguousarray((vectors[one] + vectors[two]) / 2, np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Candidate:
    index: Nearest
    is_trained: bool


def _candidates(vectors: np.ndarray, settings: Settings, before: Nearest | None) -> Iterator[_Candidate]:
    """Empty indices, the cheapest to ask first."""
    import faiss

    def candidate(kind: Kind, index: Any, *, is_trained: bool = True) -> _Candidate:
        nearest = Nearest(kind=kind, faiss=index, vectors=vectors, threads=settings.threads)
        return _Candidate(index=nearest, is_trained=is_trained)

    items, dimensions = vectors.shape
    if items <= max(settings.flat_index_max_items, FEWEST_CODED) or dimensions % 2 or not vectors.any():
        yield candidate("flat", faiss.IndexFlatIP(dimensions))
        return
    if before is not None and _fits(before, vectors):
        again = faiss.clone_index(before.faiss)
        again.reset()
        yield candidate(before.kind, again, is_trained=False)
    codes = f"PQ{dimensions // 2}x4fs"
    parts_of: dict[Kind, str] = {
        "lists": f"IVF{int(2 * np.sqrt(items))},{codes}r,RFlat",
        "codes": f"{codes},RFlat",
    }
    for kind, parts in parts_of.items():
        index: Any = faiss.index_factory(dimensions, parts, faiss.METRIC_INNER_PRODUCT)
        _prepare(faiss.downcast_index(index.base_index), settings)
        index.train(vectors)
        yield candidate(kind, index)


def _fits(before: Nearest, vectors: np.ndarray) -> bool:
    """Whether codes learned before can take these vectors; those of a paged index cannot be emptied."""
    is_coded = before.kind != "flat" and not before.is_paged
    return is_coded and before.dimensions == vectors.shape[1] and len(vectors) <= 2 * len(before)


def _prepare(codes: Any, settings: Settings) -> None:
    """Fix the chance of the training, and let a GPU find the lists where there is one; the index stays on the CPU."""
    import faiss

    codes.pq.cp.seed = settings.seed
    if not isinstance(codes, faiss.IndexIVF):
        return
    codes.cp.seed, codes.cp.max_points_per_centroid = settings.seed, POINTS_PER_LIST
    if settings.device != "cpu" and hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0:
        codes.clustering_index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(codes.d))


def _adjust(found: Nearest, asked: Asked) -> bool:
    """Look into more lists, then rank more candidates again, until enough is found; the file keeps the numbers."""
    import faiss

    if found.kind == "flat":
        return True
    codes: Any = faiss.downcast_index(found.faiss.base_index)
    for share in LISTS_LOOKED_INTO if found.kind == "lists" else (1.0,):
        if found.kind == "lists":
            codes.nprobe = max(1, round(share * codes.nlist))
        if not _finds_enough(found, asked, RANKED_AGAIN[-1]):
            continue
        return any(_finds_enough(found, asked, times) for times in RANKED_AGAIN)
    return False


def _finds_enough(found: Nearest, asked: Asked, times: int) -> bool:
    found.faiss.k_factor = times
    return asked.recall(found.search(asked.questions, RECALL_AT)[1]) >= WANTED_RECALL
