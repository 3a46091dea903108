"""Warm start: the next-item half of a network begins near what the champion learned, where that still means the same.

Near, not at it: from the champion's own weights training goes on to learn by heart days it has seen before, and ends
worse than from scratch (lab book; Ash and Adams 2020, shrink and perturb). Weights of items and categories are carried
by name; one that the champion did not know begins as in any training. The n-gram half of text vectors is fitted anew at
each training, so weights on it are turned from today's vectors to the champion's. The purchase half begins as today's
logistic regression, which is nearer to today's buyers.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor

from intent_platform.model.behaviour import Model
from intent_platform.model.network import BehaviourNetwork, Shape
from intent_platform.model.text import TextTower
from intent_platform.sequences import Split
from intent_platform.settings import Settings

CHAMPIONS_SHARE = 0.8  # of each weight that is carried; the rest is the new network's own
MOST_TEXTS = 20_000  # that the turn is fitted on
TEXT_WEIGHTS = ("tower.text.weight", "query.weight")
NOT_CARRIED = ("purchase", "feature_mean", "feature_scale")
CATEGORY_WEIGHTS = ("tower.category.weight", "to_category.weight", "to_category.bias")


@dataclass(frozen=True, kw_only=True, eq=False)
class Earlier:
    """A champion's network whose next-item half may be learned on from."""

    digest: str
    network: BehaviourNetwork
    turn: np.ndarray  # float32 (text dimensions, text dimensions): a text's vector today @ turn ≈ the champion's


def why_cold(champion: Model | None, text: TextTower, split: Split, settings: Settings) -> str | None:
    """Why a training must not begin with the champion's weights; None: it may.

    It may not have looked at any day that the candidate is validated or tested on: the weights would carry those days'
    answers, and the epoch would be chosen, the probabilities calibrated and the contest held on what was learned.
    """
    if not settings.warm_start:
        return "INTENT_WARM_START is off"
    if champion is None:
        return "There is no champion that can be read"
    newest, first = max(champion.card.data_digests, default=""), split.validation[0].isoformat()
    if newest >= first:
        return f"The champion has looked at days up to {newest}, and validation begins with {first}"
    if champion.network is None:
        return "The champion has no network"
    if champion.card.horizon_hours != settings.horizon_hours:
        return f"The champion predicts within {champion.card.horizon_hours} h instead of {settings.horizon_hours} h"
    if champion.text.encoder.digest != text.encoder.digest:
        return f"The champion reads texts with another encoder, {champion.card.encoder!r}"
    theirs = champion.network.shape
    ours = Shape(
        text_dimensions=text.dimensions,
        window_events=settings.window_events,
        categories=[],
        width=theirs.width,  # a training with a champion takes its form
        dropout=theirs.dropout,
        temperature=theirs.temperature,
    )
    asked = asdict(replace(theirs, categories=[]))
    other = [f"{name} {asked[name]} instead of {value}" for name, value in asdict(ours).items() if asked[name] != value]
    return f"The champion's network has another shape: {', '.join(other)}" if other else None


def learn_on_from(champion: Model, text: TextTower, texts: list[str], settings: Settings) -> Earlier:
    """texts: of today's items. Call it only where why_cold finds nothing."""
    assert champion.network is not None
    turn = np.eye(text.dimensions, dtype=np.float32)
    if champion.text.lexical.digest_bytes != text.lexical.digest_bytes:
        chosen = np.random.default_rng(settings.seed).permutation(len(texts))[:MOST_TEXTS]
        some = [texts[each] for each in chosen]
        today, earlier = text.lexical.dense(some), champion.text.lexical.dense(some)
        first = text.encoder.dimensions
        turn[first:, first:] = np.linalg.lstsq(today, earlier, rcond=None)[0]
    return Earlier(digest=champion.digest, network=champion.network, turn=turn)


def carry_over(network: BehaviourNetwork, earlier: Earlier) -> None:
    """network: newly made, on the CPU, of the champion's shape but for its items and categories."""
    own = network.state_dict()
    weights = earlier.network.state_dict()
    known = {name: value.cpu() for name, value in weights.items() if name.partition(".")[0] not in NOT_CARRIED}
    turn = torch.from_numpy(earlier.turn)
    known |= {name: known[name] @ turn.T for name in TEXT_WEIGHTS}
    ids = network.known_items, earlier.network.known_items
    known["tower.id.weight"] = _by_name(own["tower.id.weight"], known["tower.id.weight"], *ids)
    categories = network.shape.categories, earlier.network.shape.categories
    known |= {name: _by_name(own[name], known[name], *categories) for name in CATEGORY_WEIGHTS}
    network.load_state_dict(own | {name: torch.lerp(own[name], known[name], CHAMPIONS_SHARE) for name in known})


def _by_name(own: Tensor, earlier: Tensor, names: list[str], earlier_names: list[str]) -> Tensor:
    """Rows of `own`, those of names that were known before replaced; row 0 is of no name."""
    place = {name: number for number, name in enumerate(earlier_names, start=1)}
    found = torch.tensor([0, *(place.get(name, -1) for name in names)])
    is_known = found >= 0
    joined = own.clone()
    joined[is_known] = earlier[found[is_known]]
    return joined
