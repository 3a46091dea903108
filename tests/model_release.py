"""Releases made from the small shop, without lake or database."""

from pathlib import Path

import numpy as np
import torch
from model_shop import catalogue

from intent_platform.index.build import build_index
from intent_platform.index.demand import Demand
from intent_platform.index.item_index import load_index
from intent_platform.index.release import Manifest, Release
from intent_platform.model import parts
from intent_platform.model.behaviour import ModelCard, load_model, save_model
from intent_platform.model.blend import Blend
from intent_platform.model.lexical import fit_lexical
from intent_platform.model.network import BehaviourNetwork, Shape
from intent_platform.model.text import find_encoder
from intent_platform.settings import Settings

REASON = "too_few_mature_labels: 12 of 200"


def bootstrap_release(folder: Path) -> Release:
    return make_release(folder, kind="bootstrap", item_scorer="popularity")


def blend_release(folder: Path, blend: Blend) -> Release:
    """An untrained network whose blend is given; no sessions beside it yet."""
    torch.manual_seed(7)
    shape = Shape(text_dimensions=448, window_events=50, categories=sorted(set(catalogue()["category"].to_pylist())))
    network = BehaviourNetwork(shape, catalogue()["item_id"].to_pylist())
    return make_release(folder, kind="trained", item_scorer="blend", network=network, blend=blend)


def make_release(folder: Path, *, kind: str, item_scorer: str, **learned) -> Release:
    settings = Settings(home=folder / "home", threads=2)
    encoder = find_encoder(settings)
    card = ModelCard(
        kind=kind,
        purchase_scorer="none",
        item_scorer=item_scorer,
        intent_missing_reason=REASON,
        horizon_hours=24,
        window_events=50,
        encoder=encoder.name,
        encoder_digest=encoder.digest,
        data_digests={},
        seed=7,
    )
    root = str(folder / "lake")
    save_model(folder / "model", card, fit_lexical(catalogue()["title"].to_pylist()), **learned)
    model = load_model(root, parts.publish_part(root, "model", folder / "model"), settings)
    demand = Demand(popularity={f"i{number:02}": float(13 - number) for number in range(13)})
    build_index(model, catalogue(), demand, settings, folder / "index")
    index = load_index(root, parts.publish_part(root, "index", folder / "index"), settings)
    manifest = Manifest(shop="main", release_id=kind, model=model.digest, index=index.digest)
    return Release(manifest=manifest, model=model, index=index, is_available=np.ones(len(index), bool))
