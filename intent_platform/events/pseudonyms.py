"""Raw ids become keyed pseudonyms here, before anything else sees them."""

import hmac
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from intent_platform.keys import PSEUDONYM_KEY, read_key
from intent_platform.settings import Settings

KEY_VERSION = 1
HEX_DIGITS = 32  # 128 of HMAC-SHA256's 256 bits
REMEMBERED_IDS = 200_000  # about 40 MiB; a shopper comes again in the next batch


@dataclass(frozen=True, kw_only=True)
class Pseudonymiser:
    """HMAC-SHA256 under the shop's key: the same raw id gives the same pseudonym, in files and nearline alike.

    A pseudonym reads `u1_<32 hex digits>`: u for users, a for anonymous ids, then the key's version.
    """

    key: bytes
    shop: str
    _known: dict[tuple[str, str], str] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, settings: Settings) -> "Pseudonymiser":
        return cls(key=read_key(settings, PSEUDONYM_KEY), shop=settings.shop)

    def __repr__(self) -> str:  # keeps the key out of logs and tracebacks
        return f"Pseudonymiser(shop={self.shop!r})"

    def of_user(self, raw_id: str) -> str:
        return self._remembered("u", raw_id)

    def of_anonymous(self, raw_id: str) -> str:
        return self._remembered("a", raw_id)

    def replace_ids(self, rows: pa.Table) -> pa.Table:
        """Replace the columns user_id and anonymous_id, where present; a distinct id is hashed about once."""
        for name, pseudonym in (("user_id", self.of_user), ("anonymous_id", self.of_anonymous)):
            position = rows.schema.get_field_index(name)
            if position >= 0:
                rows = rows.set_column(position, name, _map_distinct(rows.column(name), pseudonym))
        return rows

    def _remembered(self, kind: str, raw_id: str) -> str:
        known = self._known.get((kind, raw_id))
        if known is None:
            if len(self._known) >= REMEMBERED_IDS:
                self._known.clear()
            known = self._known[kind, raw_id] = self._pseudonym(kind, raw_id)
        return known

    def _pseudonym(self, kind: str, raw_id: str) -> str:
        message = "\0".join((self.shop, kind, raw_id)).encode()
        return f"{kind}{KEY_VERSION}_{hmac.digest(self.key, message, 'sha256').hex()[:HEX_DIGITS]}"


def _map_distinct(column: pa.ChunkedArray, function) -> pa.ChunkedArray:
    encoded = pc.dictionary_encode(column.combine_chunks())
    mapped = pa.array([function(each) for each in encoded.dictionary.to_pylist()], pa.string())
    return pa.chunked_array([mapped.take(encoded.indices)])
