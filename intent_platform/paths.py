"""Where the package's own files lie: beside it in a checkout, inside it in a wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource_folder(name: str) -> Path:
    """Folder `sql`, `sources`, `dags` or `plugins`: the checkout's when there is one, else the wheel's copy."""
    shipped = _PACKAGE / "resources" / name
    return shipped if shipped.is_dir() else _PACKAGE.parent / name
