"""A model folder model/<digest>/ in memory: it scores purchase intent, makes item vectors, turns text to vectors."""

import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from intent_platform.errors import EncoderMissing, ReleaseInvalid
from intent_platform.model import parts
from intent_platform.model.blend import Blend
from intent_platform.model.calibration import Calibration
from intent_platform.model.features import features
from intent_platform.model.inputs import KnownItems
from intent_platform.model.lexical import Lexical
from intent_platform.model.logistic import LogisticRegression
from intent_platform.model.rows import Rows
from intent_platform.model.text import Encoder, TextTower, encoder_in, find_encoder, item_text
from intent_platform.settings import Settings

if TYPE_CHECKING:
    import lightgbm

    from intent_platform.model.network import BehaviourNetwork
    from intent_platform.model.reading import Reading

CARD = "model.json"
BLEND = "blend.json"
LOGISTIC = "logistic.json"
ENCODER = "encoder"
"""Folder inside the model's, in Hugging Face form: an encoder that was tuned in the same training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCard:
    """model.json: what the folder is, without times or names of machines, so equal training gives an equal digest."""

    kind: Literal["bootstrap", "trained"]
    purchase_scorer: Literal["none", "network", "boosted_trees", "logistic_regression"]
    item_scorer: Literal["popularity", "network", "blend"]
    intent_missing_reason: str | None  # why purchase_scorer is none
    horizon_hours: int
    window_events: int
    encoder: str
    encoder_digest: str
    data_digests: dict[str, str]  # day → content digest of what it was trained on
    seed: int
    started_from: str | None = None  # digest of the champion whose weights the network began with; None: cold


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """Everything a release needs from training."""

    digest: str
    card: ModelCard
    text: TextTower
    calibration: Calibration | None = None
    network: "BehaviourNetwork | None" = None
    trees: "lightgbm.Booster | None" = None
    logistic: LogisticRegression | None = None
    blend: Blend | None = None

    def item_texts(self, items: pa.Table) -> list[str]:
        columns = (items[name].to_pylist() for name in ("title", "category", "brand"))
        return [item_text(*each) for each in zip(*columns, strict=True)]

    def item_vectors(self, items: pa.Table, text_vectors: np.ndarray) -> np.ndarray:
        """float32 (items, D): the network's, or without one the text vectors themselves."""
        if self.network is None:
            return text_vectors
        return self.network.item_vectors(items, text_vectors)

    def hidden(self, rows: Rows, positions: np.ndarray, item: np.ndarray, known: KnownItems) -> np.ndarray | None:
        """The network's state after each position, (len(positions), H); None where no network scores.

        item: (R,) position in `known` of each row's item, −1 for none.
        """
        if self._reading is None:
            return None
        return self._reading.states_at(rows, positions, item, known, self.text)

    @cached_property
    def _reading(self) -> "Reading | None":
        from intent_platform.model.reading import Reading

        return None if self.network is None else Reading.of(self.network)

    def intent(
        self, rows: Rows, positions: np.ndarray, asked_at: np.ndarray, hidden: np.ndarray | None
    ) -> np.ndarray | None:
        """Calibrated purchase probability of each (position, asked_at in µs); None without a purchase scorer."""
        if self.card.purchase_scorer == "none":
            return None
        assert self.calibration is not None
        table = features(rows, positions, asked_at)
        if self.card.purchase_scorer == "logistic_regression":
            assert self.logistic is not None
            return self.calibration.apply(self.logistic.predict(table))
        if self.card.purchase_scorer == "boosted_trees":
            assert self.trees is not None
            return self.calibration.apply(predict_trees(self.trees, table))
        assert self.network is not None
        assert hidden is not None
        return self.calibration.apply(self.network.purchase_probability(hidden, table))


def predict_trees(trees: "lightgbm.Booster", table: np.ndarray) -> np.ndarray:
    """Raw probability of the boosted trees, float64."""
    return np.asarray(trees.predict(table.astype(np.float64)), np.float64)


def save_model(
    folder: Path,
    card: ModelCard,
    lexical: Lexical,
    *,
    calibration: Calibration | None = None,
    network: "BehaviourNetwork | None" = None,
    trees: "lightgbm.Booster | None" = None,
    logistic: LogisticRegression | None = None,
    blend: Blend | None = None,
) -> None:
    """Write the files of a model folder; `parts.publish_part` then gives it its digest."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).write_text(json.dumps(asdict(card), indent=1, sort_keys=True), encoding="utf-8")
    lexical.save(folder / "lexical.safetensors")
    if calibration is not None:
        (folder / "calibration.json").write_text(json.dumps(asdict(calibration), indent=1), encoding="utf-8")
    if network is not None:
        network.save(folder)
    if trees is not None:
        trees.save_model(str(folder / "trees.txt"))
    if logistic is not None:
        (folder / LOGISTIC).write_text(json.dumps(asdict(logistic), indent=1), encoding="utf-8")
    if blend is not None:
        blend.save(folder / BLEND)


def load_model(root: str, digest: str, settings: Settings) -> Model:
    """Load model/<digest>, checked; once per process.

    A model with an encoder of its own (ENCODER) brings it along, whatever the settings name. For one without,
    EncoderMissing when the settings name another encoder than the one it was trained with.
    """
    return _load(root, digest, settings.encoder, settings.home, settings.device, settings.threads)


@lru_cache(maxsize=4)
def _load(root: str, digest: str, encoder_name: str, home: Path, device: str, threads: int) -> Model:
    folder = parts.open_part(root, "model", digest, home)
    stored = json.loads((folder / CARD).read_text(encoding="utf-8"))
    card = ModelCard(**{each.name: stored[each.name] for each in fields(ModelCard) if each.name in stored})
    encoder = _load_encoder(folder, card, Settings(encoder=encoder_name, home=home, device=device, threads=threads))
    return Model(
        digest=digest,
        card=card,
        text=TextTower(encoder=encoder, lexical=Lexical.load(folder / "lexical.safetensors")),
        calibration=_load_calibration(folder),
        network=_load_network(folder, device),
        trees=_load_trees(folder),
        logistic=_load_logistic(folder),
        blend=Blend.load(folder / BLEND) if (folder / BLEND).exists() else None,
    )


def _load_encoder(folder: Path, card: ModelCard, settings: Settings) -> Encoder:
    if (folder / ENCODER).is_dir():
        return encoder_in(folder / ENCODER, card.encoder, settings)
    encoder = find_encoder(settings)
    if encoder.digest != card.encoder_digest:
        raise EncoderMissing(
            f"{folder} was trained with encoder {card.encoder!r} ({card.encoder_digest[:16]}…), but the settings give "
            f"{encoder.name!r} ({encoder.digest[:16]}…). Set INTENT_ENCODER back, or run `intent train`."
        )
    return encoder


def _load_calibration(folder: Path) -> Calibration | None:
    path = folder / "calibration.json"
    return Calibration(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _load_logistic(folder: Path) -> LogisticRegression | None:
    path = folder / LOGISTIC
    return LogisticRegression(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _load_network(folder: Path, device: str) -> "BehaviourNetwork | None":
    if not (folder / "network.safetensors").exists():
        return None
    from intent_platform.model.network import BehaviourNetwork

    return BehaviourNetwork.load(folder, device)


def _load_trees(folder: Path) -> "lightgbm.Booster | None":
    path = folder / "trees.txt"
    if not path.exists():
        return None
    import lightgbm
    import torch  # noqa: F401  # before LightGBM: the first OpenMP runtime in a process must be torch's

    try:
        return lightgbm.Booster(model_file=str(path))
    except lightgbm.basic.LightGBMError as error:
        raise ReleaseInvalid(f"{path} is not a LightGBM model: {error}") from error
