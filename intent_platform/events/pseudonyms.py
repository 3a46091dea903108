"""Raw ids become keyed pseudonyms here, before anything else sees them."""

import hmac
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from intent_platform import db
from intent_platform.errors import KeyMissing
from intent_platform.keys import PSEUDONYM_KEY, read_key
from intent_platform.settings import Settings

KEY_VERSION = 1
HEX_DIGITS = 32  # 128 of HMAC-SHA256's 256 bits
REMEMBERED_IDS = 1_000_000  # some 60 MiB; a shopper comes again in the next batch
BLANKS = " \t\n\f\r"  # what DuckDB's \\s matches
NO_IDS = pa.chunked_array([], pa.string())


@dataclass(frozen=True, kw_only=True)
class Pseudonymiser:
    """HMAC-SHA256 under the shop's key: the same raw id gives the same pseudonym, in files and nearline alike.

    A pseudonym reads `u1_<32 hex digits>`: u for users, a for anonymous ids, then the key's version. A blank raw id is
    no id and has none.
    """

    key: bytes
    shop: str
    _known: dict[str, tuple[pa.ChunkedArray, pa.ChunkedArray]] = field(default_factory=dict, compare=False)
    # by kind: raw ids, and the pseudonym of each

    @classmethod
    def of(cls, settings: Settings) -> "Pseudonymiser":
        return cls(key=read_key(settings, PSEUDONYM_KEY), shop=settings.shop)

    @property
    def fingerprint(self) -> str:
        """Tells keys apart, and nothing of them: the pseudonym of a word that no raw id's kind goes with."""
        return str(self._pseudonym("k", "fingerprint"))

    def __repr__(self) -> str:  # keeps the key out of logs and tracebacks
        return f"Pseudonymiser(shop={self.shop!r})"

    def of_user(self, raw_id: str) -> str | None:
        return self._pseudonym("u", raw_id)

    def of_anonymous(self, raw_id: str) -> str | None:
        return self._pseudonym("a", raw_id)

    def replace_ids(self, rows: pa.Table) -> pa.Table:
        """Replace the columns user_id and anonymous_id, where present; a distinct id is hashed about once."""
        for name, kind in (("user_id", "u"), ("anonymous_id", "a")):
            position = rows.schema.get_field_index(name)
            if position >= 0:
                rows = rows.set_column(position, name, self._replaced(kind, rows.column(name).combine_chunks()))
        return rows

    def _replaced(self, kind: str, raw_ids: pa.Array) -> pa.Array:
        encoded = pc.dictionary_encode(raw_ids)
        known, pseudonyms = self._known.get(kind, (NO_IDS, NO_IDS))
        if len(known) > REMEMBERED_IDS:
            known = pseudonyms = NO_IDS
        places = _places(encoded.dictionary, known)
        new = encoded.dictionary.filter(pa.array(places < 0))
        if len(new):
            made = pa.array([self._pseudonym(kind, each) for each in new.to_pylist()], pa.string())
            places[places < 0] = len(known) + np.arange(len(new))
            known, pseudonyms = _appended(known, new), _appended(pseudonyms, made)
            self._known[kind] = known, pseudonyms
        return pseudonyms.take(pa.array(places).take(encoded.indices)).combine_chunks()

    def _pseudonym(self, kind: str, raw_id: str) -> str | None:
        if not raw_id.strip(BLANKS):
            return None
        digest = hmac.digest(self.key, f"{self.shop}\0{kind}\0{raw_id}".encode(), "sha256")
        return f"{kind}{KEY_VERSION}_{digest.hex()[:HEX_DIGITS]}"


def confirm_key(settings: Settings) -> None:
    """KeyMissing where the key that is here is not the one that the shop began with: its shoppers would be others."""
    mine = Pseudonymiser.of(settings).fingerprint
    with db.connect(settings) as connection:
        (known,) = db.query(connection, "shop_key", shop=settings.shop, fingerprint=mine)
    if known["fingerprint"] != mine:
        raise KeyMissing(
            f"The pseudonym key here is not the one that shop {settings.shop!r} began with, so its shoppers would all "
            "be new ones. Bring that key here, in INTENT_PSEUDONYM_KEY or its file; to begin anew, take a new database "
            "and lake. If this is the right key and a wrong one came first, delete the shop's row of "
            "registry.pseudonym_key."
        )


def _places(ids: pa.Array, known: pa.ChunkedArray) -> np.ndarray:
    """Where each of `ids` stands among the known ones, or -1. The known are looked up: they are many, `ids` a batch."""
    found = pc.index_in(known, value_set=ids)
    at = np.flatnonzero(found.is_valid())
    places = np.full(len(ids), -1, dtype=np.int64)
    places[found.drop_null().to_numpy()] = at
    return places


def _appended(column: pa.ChunkedArray, more: pa.Array) -> pa.ChunkedArray:
    return pa.chunked_array([*column.chunks, more])
