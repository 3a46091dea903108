"""A bootstrap release made from the small shop, without lake or database."""

from pathlib import Path

import numpy as np
from model_shop import catalogue

from intent_platform.index.item_index import build_index, load_index
from intent_platform.index.release import Manifest, Release
from intent_platform.model import parts
from intent_platform.model.behaviour import ModelCard, load_model, save_model
from intent_platform.model.lexical import fit_lexical
from intent_platform.model.text import find_encoder
from intent_platform.settings import Settings

REASON = "too_few_mature_labels: 12 of 200"


def bootstrap_release(folder: Path) -> Release:
    settings = Settings(home=folder / "home", threads=2)
    encoder = find_encoder(settings)
    card = ModelCard(
        kind="bootstrap",
        purchase_scorer="none",
        item_scorer="popularity",
        intent_missing_reason=REASON,
        horizon_hours=24,
        window_events=50,
        encoder=encoder.name,
        encoder_digest=encoder.digest,
        data_digests={},
        seed=7,
    )
    root = str(folder / "lake")
    save_model(folder / "model", card, fit_lexical(catalogue()["title"].to_pylist()))
    model = load_model(root, parts.publish_part(root, "model", folder / "model"), settings)
    popularity = {f"i{number:02}": float(13 - number) for number in range(13)}
    build_index(model, catalogue(), popularity, settings, folder / "index")
    index = load_index(root, parts.publish_part(root, "index", folder / "index"), settings.home)
    manifest = Manifest(shop="main", release_id="bootstrap", model=model.digest, index=index.digest)
    return Release(manifest=manifest, model=model, index=index, is_available=np.ones(len(index), bool))
