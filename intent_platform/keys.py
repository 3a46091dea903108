"""Secret keys: from the environment, or from 0600 files in <home>/keys that `intent keys` makes once."""

import os
import secrets
from pathlib import Path

from nacl.public import PrivateKey

from intent_platform.errors import KeyMissing
from intent_platform.settings import Settings

PSEUDONYM_KEY = "pseudonym_key"
SEALING_PUBLIC_KEY = "sealing_public_key"
SEALING_PRIVATE_KEY = "sealing_private_key"


def create_missing_keys(settings: Settings) -> list[str]:
    """Make what is missing and return its names; never replaces a key, since old pseudonyms hang on it."""
    made = []
    if not _is_known(settings, PSEUDONYM_KEY):
        write_secret(settings, PSEUDONYM_KEY, secrets.token_hex(32))
        made.append(PSEUDONYM_KEY)
    if not _is_known(settings, SEALING_PUBLIC_KEY):
        pair = PrivateKey.generate()
        write_secret(settings, SEALING_PRIVATE_KEY, bytes(pair).hex())
        write_secret(settings, SEALING_PUBLIC_KEY, bytes(pair.public_key).hex())
        made += [SEALING_PUBLIC_KEY, SEALING_PRIVATE_KEY]
    return made


def read_key(settings: Settings, name: str) -> bytes:
    """32 bytes of a key, from INTENT_<NAME> (hex) or its file. KeyMissing says which, where, and what to do."""
    text = os.environ.get(f"INTENT_{name.upper()}") or _read_file(settings, name)
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != 32:
        raise KeyMissing(f"The key {name} is not 64 hexadecimal digits; look at INTENT_{name.upper()} or its file.")
    return key


def write_secret(settings: Settings, name: str, value: str) -> Path:
    """Write a 0600 file of a secret that is not there yet."""
    path = _file(settings, name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(value + "\n")
    return path


def _file(settings: Settings, name: str) -> Path:
    return settings.home / "keys" / name


def _is_known(settings: Settings, name: str) -> bool:
    return bool(os.environ.get(f"INTENT_{name.upper()}")) or _file(settings, name).exists()


def _read_file(settings: Settings, name: str) -> str:
    path = _file(settings, name)
    if not path.exists():
        raise KeyMissing(
            f"The key {name} is neither in INTENT_{name.upper()} nor in {path}. Bring the shop's key here; if the shop "
            "is new, run `intent keys`."
        )
    if path.stat().st_mode & 0o077:
        raise KeyMissing(f"{path} can be read by others; run `chmod 600 {path}`, and think of a new key.")
    return path.read_text()
