"""What every benchmark leaves: <INTENT_HOME>/bench/<name>.json: figures, peers, data digest, commit and machine."""

import hashlib
import json
import os
import platform
import resource
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from intent_platform.settings import Settings


def bench_folder() -> Path:
    return Settings.from_env().home / "bench"


def bench_settings(*, epochs: int, encoder: str) -> Settings:
    """The product's defaults, so that figures compare over time; only where files lie and what computes is yours."""
    given = Settings.from_env()
    return Settings(home=given.home, device=given.device, threads=given.threads, max_epochs=epochs, encoder=encoder)


def peak_mib() -> float:
    """The most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def digest_of(files: Sequence[Path]) -> str:
    """SHA-256 of all their bytes, in order."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def write_result(
    name: str,
    figures: Mapping[str, float],
    peers: Mapping[str, Mapping[str, float]],
    data: Sequence[Path],
    command: str,
) -> None:
    """Peers use the keys of the figures, so that a ratio is one division. data: the files that were read, in order."""
    result = {
        "name": name,
        "figures": figures,
        "peers": peers,
        "data_digest": digest_of(data),
        "commit": _commit(),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        "command": command,
    }
    bench_folder().mkdir(parents=True, exist_ok=True)
    path = bench_folder() / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"Written to {path}.")


def _commit() -> str:
    """Of the checkout that this code is in; empty for an installed wheel, or without git."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return found.stdout.strip()
