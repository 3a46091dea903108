"""Quarantined rows: sealed with a public key at the door, opened only by replay.

A sealed row is: a random data key sealed for the private key's owner (80 bytes, one key per file), a nonce
(12 bytes), and the row under AES-256-GCM, bound to its shop, day, file and line.
"""

import os
from dataclasses import dataclass, field
from datetime import date

import pyarrow as pa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from intent_platform.errors import KeyMissing
from intent_platform.events.contract import QUARANTINE_SCHEMA
from intent_platform.keys import SEALING_PRIVATE_KEY, SEALING_PUBLIC_KEY, read_key
from intent_platform.settings import Settings

SEALED_KEY_BYTES = 80
NONCE_BYTES = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a row came from; a sealed row opens only for the place it was sealed for."""

    shop: str
    received_on: date
    file: str
    line: int

    def __bytes__(self) -> bytes:
        return "\0".join((self.shop, self.received_on.isoformat(), self.file, str(self.line))).encode()


class Sealer:
    """Seals the rows of one file under a data key of their own."""

    def __init__(self, settings: Settings) -> None:
        data_key = AESGCM.generate_key(256)
        self._sealed_key = SealedBox(PublicKey(read_key(settings, SEALING_PUBLIC_KEY))).encrypt(data_key)
        self._cipher = AESGCM(data_key)

    def seal(self, raw: bytes, place: Place) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return self._sealed_key + nonce + self._cipher.encrypt(nonce, raw, bytes(place))


@dataclass
class Unsealer:
    """Opens sealed rows; needs the private key, so only replay has one."""

    settings: Settings
    _ciphers: dict[bytes, AESGCM] = field(default_factory=dict)

    def unseal(self, sealed: bytes, place: Place) -> bytes:
        sealed_key, rest = sealed[:SEALED_KEY_BYTES], sealed[SEALED_KEY_BYTES:]
        try:
            cipher = self._cipher(sealed_key)
            return cipher.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], bytes(place))
        except (CryptoError, InvalidTag) as error:
            raise KeyMissing(
                f"{place.file} line {place.line}: the sealed row does not open; it was sealed for another key pair "
                f"than {SEALING_PRIVATE_KEY} in {self.settings.home / 'keys'}."
            ) from error

    def _cipher(self, sealed_key: bytes) -> AESGCM:
        if sealed_key not in self._ciphers:
            box = SealedBox(PrivateKey(read_key(self.settings, SEALING_PRIVATE_KEY)))
            self._ciphers[sealed_key] = AESGCM(box.decrypt(sealed_key))
        return self._ciphers[sealed_key]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """A row that broke a rule, on its way into the quarantine."""

    place: Place
    broken_rule: str
    raw: bytes


def quarantine_table(rejected: list[Rejected], sealer: Sealer) -> pa.Table:
    """Rows of the lake's table `quarantine`."""
    return pa.Table.from_pylist(
        [
            {
                "received_on": each.place.received_on,
                "file": each.place.file,
                "line": each.place.line,
                "broken_rule": each.broken_rule,
                "sealed_row": sealer.seal(each.raw, each.place),
            }
            for each in rejected
        ],
        schema=QUARANTINE_SCHEMA,
    )
