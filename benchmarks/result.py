"""What every benchmark leaves: var/bench/<name>.json with figures, peers, the data's digest, commit and machine."""

import hashlib
import json
import os
import platform
import resource
import subprocess
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path("var/bench")


def peak_mib() -> float:
    """The most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_result(name: str, figures: dict, peers: dict, data: Sequence[Path], command: str) -> None:
    """Peers use the keys of the figures, so that a ratio is one division. data: the files that were read, in order."""
    digest = hashlib.sha256()
    for path in data:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    result = {
        "name": name,
        "figures": figures,
        "peers": peers,
        "data_digest": digest.hexdigest(),
        "commit": commit,
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        "command": command,
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"Written to {path}.")
