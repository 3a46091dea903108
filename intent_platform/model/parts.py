"""Immutable folders named by the digest of what they hold: <root>/model/<digest>/, <root>/index/<digest>/.

A part may have folders inside; a file's name is then its path below the part, with slashes.
A part is written to a folder beside its place, flushed, and renamed: it is there whole or not at all. Reading one
checks every byte against its name, once per process. No pickles: safetensors, JSON, Parquet, FAISS, LightGBM text.
"""

import hashlib
import json
import os
import shutil
import uuid
from functools import lru_cache
from pathlib import Path

import fsspec

from intent_platform.errors import ReleaseInvalid

LISTING = "part.json"


def digest_of_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of_folder(folder: Path) -> str:
    """SHA-256 over the names and SHA-256 of a folder's files; the listing itself is left out."""
    return hashlib.sha256(_listing(folder)).hexdigest()


def publish_part(root: str, kind: str, folder: Path) -> str:
    """Move a finished folder to <root>/<kind>/<digest>/ and return the digest; an equal part is left as it is."""
    (folder / LISTING).write_bytes(_listing(folder))
    digest = digest_of_folder(folder)
    filesystem, base = fsspec.core.url_to_fs(root)
    target = f"{base.rstrip('/')}/{kind}/{digest}"
    if filesystem.exists(f"{target}/{LISTING}"):
        return digest
    if _is_local(filesystem):
        _publish_locally(folder, Path(target))
    else:  # an object store has no rename: the listing comes last, and nothing reads a part without it
        for name in (*_names(folder), LISTING):
            filesystem.put_file(str(folder / name), f"{target}/{name}")
    return digest


def open_part(root: str, kind: str, digest: str, cache: Path) -> Path:
    """A local folder with the part's files, each of them checked. ReleaseInvalid names the file that does not fit."""
    filesystem, base = fsspec.core.url_to_fs(root)
    if _is_local(filesystem):
        folder = Path(f"{base.rstrip('/')}/{kind}/{digest}")
    else:
        folder = cache / "parts" / kind / digest
        _fetch(filesystem, f"{base.rstrip('/')}/{kind}/{digest}", folder)
    return _checked(folder, digest)


def remove_part(root: str, kind: str, digest: str, cache: Path) -> bool:
    """Remove a part and its local copy; False where it is gone already. Cut short, it leaves no part to be opened."""
    filesystem, base = fsspec.core.url_to_fs(root)
    target = f"{base.rstrip('/')}/{kind}/{digest}"
    _checked.cache_clear()
    shutil.rmtree(cache / "parts" / kind / digest, ignore_errors=True)
    if not filesystem.exists(target):
        return False
    if filesystem.exists(f"{target}/{LISTING}"):  # nothing reads a part without it
        filesystem.rm_file(f"{target}/{LISTING}")
    filesystem.rm(target, recursive=True)
    return True


def write_small_file(path: str, content: bytes) -> None:
    """Write a file whole or not at all: rename on a local disk, a single PUT in an object store."""
    filesystem, base = fsspec.core.url_to_fs(path)
    if not _is_local(filesystem):
        filesystem.pipe_file(base, content)
        return
    Path(base).parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(f"{base}.{uuid.uuid4().hex}")
    temporary.write_bytes(content)
    flush_file(temporary)
    temporary.replace(base)
    flush_file(Path(base).parent)


def read_small_file(path: str) -> bytes:
    filesystem, base = fsspec.core.url_to_fs(path)
    if not filesystem.exists(base):
        raise ReleaseInvalid(f"{path} is missing; mend INTENT_LAKE, promote another release, or restore the file.")
    return filesystem.cat_file(base)


def remove_small_file(path: str) -> bool:
    """False where it is gone already."""
    filesystem, base = fsspec.core.url_to_fs(path)
    if not filesystem.exists(base):
        return False
    filesystem.rm_file(base)
    return True


def flush_file(path: Path) -> None:
    """fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@lru_cache(maxsize=64)
def _checked(folder: Path, digest: str) -> Path:
    if not folder.is_dir():
        raise ReleaseInvalid(f"{folder} is missing; promote another release, or restore the folder.")
    found = digest_of_folder(folder)
    if found != digest:
        raise ReleaseInvalid(
            f"{folder} holds other bytes than its name says: {_first_difference(folder)}. Nothing of it was loaded; "
            "promote another release, or restore the folder."
        )
    return folder


def _first_difference(folder: Path) -> str:
    """Which file changed, judged by the part's own listing."""
    try:
        said = json.loads((folder / LISTING).read_bytes())
    except (OSError, ValueError):
        return f"{LISTING} is missing or torn"
    is_ = json.loads(_listing(folder))
    for name in sorted(said.keys() | is_.keys()):
        if said.get(name) != is_.get(name):
            word = "missing" if name not in is_ else "added" if name not in said else "changed"
            return f"{name} was {word}"
    return f"{LISTING} was changed"


def _listing(folder: Path) -> bytes:
    files = {name: digest_of_file(folder / name) for name in _names(folder)}
    return json.dumps(files, sort_keys=True, indent=1).encode()


def _names(folder: Path) -> list[str]:
    files = (each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file())
    return sorted(name for name in files if name != LISTING)


def _publish_locally(folder: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.parent / f".{uuid.uuid4().hex}"
    shutil.copytree(folder, beside)
    for each in beside.rglob("*"):
        if each.is_file():
            each.chmod(0o644)  # safetensors writes 0600: another account may serve what this one trained
        flush_file(each)
    flush_file(beside)
    try:
        beside.rename(target)
    except OSError:
        if not (target / LISTING).exists():  # else somebody published the same bytes meanwhile
            raise
        shutil.rmtree(beside)
    flush_file(target.parent)


def _fetch(filesystem: fsspec.AbstractFileSystem, source: str, folder: Path) -> None:
    if (folder / LISTING).exists():
        return
    if not filesystem.exists(f"{source}/{LISTING}"):
        raise ReleaseInvalid(f"{source} is missing; promote another release, or restore the folder.")
    beside = folder.parent / f".{uuid.uuid4().hex}"
    beside.mkdir(parents=True)
    for name in (*json.loads(filesystem.cat_file(f"{source}/{LISTING}")), LISTING):
        (beside / name).parent.mkdir(parents=True, exist_ok=True)
        filesystem.get_file(f"{source}/{name}", str(beside / name))
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def _is_local(filesystem: fsspec.AbstractFileSystem) -> bool:
    protocol = filesystem.protocol
    return "file" in ((protocol,) if isinstance(protocol, str) else tuple(protocol))
