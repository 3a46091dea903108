"""The model that serves, asked on the candidate's test examples."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from intent_platform.errors import IntentError
from intent_platform.model.behaviour import Model, load_model
from intent_platform.model.examples import Examples
from intent_platform.model.inputs import Inputs, catalogue_of, read_events
from intent_platform.model.ranking import Asked, blend_ranks, ranks
from intent_platform.settings import Settings


@dataclass(frozen=True, kw_only=True, eq=False)
class Champion:
    """What it predicted; or neither, and why."""

    note: str | None = None
    probability: np.ndarray | None = None  # float64 (E,), calibrated
    rank: np.ndarray | None = None  # int64 (ranked,); None where popularity ranks, an opponent anyway


def ask_champion(
    digest: str | None,
    root: str,
    inputs: Inputs,
    items: pa.Table,
    test: Examples,
    ranked: Examples,
    known_until: int,
    settings: Settings,
) -> Champion:
    """items: the catalogue's table, in the order of inputs.catalogue. A champion that cannot be asked is a note."""
    if digest is None:
        return Champion(note="No trained model serves yet, so there is no champion to beat.")
    try:
        model = load_model(root, digest, settings)
    except IntentError as error:
        return Champion(note=f"The champion {digest[:10]} could not be asked: {error}")
    if model.card.purchase_scorer == "none":
        return Champion(note="A bootstrap release serves: it has no champion to beat but popularity.")
    if model.card.horizon_hours != settings.horizon_hours:
        return Champion(
            note=f"The champion {digest[:10]} predicts within {model.card.horizon_hours} h, the candidate within "
            f"{settings.horizon_hours} h: they are not compared."
        )
    return _ask(model, inputs, items, test, ranked, known_until)


def _ask(model: Model, inputs: Inputs, items: pa.Table, test: Examples, ranked: Examples, known_until: int) -> Champion:
    text_vectors = model.text.vectors(model.item_texts(items))
    own = Inputs(
        rows=inputs.rows,
        events=read_events(inputs.rows, inputs.events.item, inputs.item_category, model.text),
        catalogue=catalogue_of(items, text_vectors),
    )
    vectors = model.item_vectors(items, text_vectors)
    network = model.network
    hidden = None if network is None else network.states(own, vectors, test.position)
    probability = model.intent(own.rows, test.position, test.asked_at, hidden)
    if network is None or model.card.item_scorer == "popularity":
        return Champion(probability=probability)
    asked = Asked(
        position=ranked.position,
        next_item=ranked.next_item,
        wanted=network.user_vectors(network.states(own, vectors, ranked.position)),
        vectors=vectors,
        encoder_dimensions=model.text.encoder.dimensions,
        known_until=known_until,
    )
    rank = (
        ranks(asked.wanted, vectors, asked.next_item) if model.blend is None else blend_ranks(model.blend, own, asked)
    )
    return Champion(probability=probability, rank=rank)
