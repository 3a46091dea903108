"""A block of shoppers, simulated side by side: each pass of the loop is one step of every shopper still around.

Two things go on in a step. The hidden state, drawn by the law, decides what happens; and an observer, who is shown
only an Observation, keeps the belief from which the posterior is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from intent_platform.synthetic.catalogue import LANGUAGES, QUERY_FORMS, STYLES, Catalogue
from intent_platform.synthetic.chance import Bools, Floats, Ints, RowSampler
from intent_platform.synthetic.clock import DAY_MS, TICK_MS, ticks_within, wall_ms
from intent_platform.synthetic.law import (
    ADD,
    BUY,
    CART_KEPT_TICKS,
    CART_SLOTS,
    CHEAPER,
    DEARER,
    ELSEWHERE,
    IN_VISIT,
    LEFT,
    LOOK,
    RATE,
    REFUND,
    REMOVE,
    SAME_ITEM,
    SEARCH,
    Law,
)
from intent_platform.synthetic.posterior import (
    UNSEEN,
    Observation,
    first_belief,
    next_belief,
    purchase_probability,
    purchase_within,
)

NOTHING = -1

FAVOURITES = 3  # leaf categories a shopper has a taste for
_FAVOURITE_SHARES = (0.50, 0.22, 0.10)  # of the looks elsewhere; the rest follows the season's demand
_EARLY_RATIO = 0.7  # of shoppers first seen within the first two days, or fewer in a short shop
_GO_BACK_RATIO = 0.35  # chance to return to the item seen before, where the relation drawn allows it
_HIT_RATIO = 0.45  # chance that the look after a search is at the very item in mind
_CLICK_RATIO = (0.06, 0.88)  # how often a look shows as a click: otherwise, after a search
_STARS = (0.06, 0.06, 0.12, 0.30, 0.46)


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """What all shoppers share."""

    law: Law
    catalogue: Catalogue
    days: int
    horizon_hours: int
    within: Floats  # (ticks + 1, Z), from purchase_within
    action: RowSampler
    relation: RowSampler
    modifier: RowSampler
    wait: RowSampler
    wait_ticks: tuple[RowSampler, ...]
    next_state: tuple[RowSampler, ...]


def make_world(law: Law, catalogue: Catalogue, *, days: int, horizon_hours: int, most_ticks: int) -> World:
    """Prepare the law's tables for drawing; most_ticks is the longest horizon on the shop's clock."""
    return World(
        law=law,
        catalogue=catalogue,
        days=days,
        horizon_hours=horizon_hours,
        within=purchase_within(law, most_ticks),
        action=RowSampler(law.action),
        relation=RowSampler(law.relation),
        modifier=RowSampler(law.modifier),
        wait=RowSampler(law.wait),
        wait_ticks=tuple(RowSampler(ticks) for ticks in law.wait_ticks),
        next_state=tuple(RowSampler(table) for table in law.next_state),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """What happened, one entry per event row; the rows of one order share user and step."""

    user: Ints  # number of the shopper in the whole shop
    language: Ints
    step: Ints  # of the shopper, from 0
    wall_ms: Ints  # since the first day's midnight
    action: Ints
    is_click: Bools
    item: Ints  # NOTHING for a search
    query: Ints  # NOTHING but for a search
    slot: Ints  # place of the row in its order
    visit: Ints  # of the shopper, from 0
    order: Ints  # of the shopper, from 0; NOTHING where there is none
    quantity: Ints  # 0 where there is none
    stars: Ints  # 0 where there is none
    posterior: Floats

    def __len__(self) -> int:
        return len(self.user)


@dataclass(kw_only=True, slots=True)
class _Shoppers:
    """The state of the U shoppers still around, in arrays of length U."""

    # hidden
    state: Ints
    favourites: Ints  # (U, FAVOURITES) leaf categories
    style: Ints
    # fixed
    user: Ints
    start_ms: Ints  # of the shopper's tick 0, on the shop's clock; shoppers do not share a grid
    # observable so far
    step: Ints
    tick: Ints
    waited: Ints  # ticks since the step before
    visit: Ints
    orders: Ints
    focus: Ints  # item looked at last; before the first look, the item that brings the shopper here
    focus_is_known: Bools
    focus_before: Ints
    cart: Ints  # (U, CART_SLOTS) items, oldest first, NOTHING behind the last
    bought: Ints  # item of the latest order
    searched: Ints  # item in mind of a search just made, else NOTHING
    belief: Floats  # (U, Z) after the latest step

    def __len__(self) -> int:
        return len(self.state)

    def only(self, chosen: Bools) -> _Shoppers:
        """Return the chosen shoppers."""
        return _Shoppers(**{each.name: getattr(self, each.name)[chosen] for each in fields(self)})

    def cart_count(self) -> Ints:
        """Return how many items lie in each cart."""
        return (self.cart != NOTHING).sum(axis=1)

    def language(self) -> Ints:
        """Return the number of the language each searches in."""
        return self.style // (STYLES // len(LANGUAGES))

    def now_ms(self) -> Ints:
        """Return the wall clock, in milliseconds since the first day's midnight."""
        return wall_ms(self.start_ms + self.tick * TICK_MS)


def simulate(world: World, users: range, seed: int) -> Rows:
    """Return every row of these shoppers, in order of step; also of the horizon after the last day, for the labels."""
    rng = np.random.default_rng([seed, 2, users.start])
    steps = list(_steps(world, _newcomers(world, rng, users), rng))
    return Rows(**{each.name: np.concatenate([getattr(step, each.name) for step in steps]) for each in fields(Rows)})


def _steps(world: World, shoppers: _Shoppers, rng: np.random.Generator) -> Iterator[Rows]:
    end_ms = world.days * DAY_MS + world.horizon_hours * 3_600_000
    while len(shoppers):
        yield _step(world, shoppers, rng)
        shoppers = _wait(world, shoppers, rng)
        shoppers = shoppers.only(shoppers.now_ms() < end_ms)


def _newcomers(world: World, rng: np.random.Generator, users: range) -> _Shoppers:
    count, catalogue = len(users), world.catalogue
    style = rng.integers(STYLES, size=count)
    early_ms = min(2, world.days) * DAY_MS
    start_ms = np.where(
        rng.random(count) < _EARLY_RATIO, rng.random(count) * early_ms, rng.random(count) * world.days * DAY_MS
    ).astype(np.int64)
    day = start_ms // DAY_MS
    favourites = np.stack([catalogue.demand.draw(day, rng.random(count)) for _ in range(FAVOURITES)], axis=1)
    focus = _item_in_leaf(world, style, day, favourites[:, 0], rng)
    zero, nothing = np.zeros(count, dtype=np.int64), np.full(count, NOTHING)
    return _Shoppers(
        state=RowSampler(world.law.first[None, :]).draw(zero, rng.random(count)),
        favourites=favourites,
        style=style,
        user=np.arange(users.start, users.stop),
        start_ms=start_ms,
        step=zero,
        tick=zero,
        waited=zero,
        visit=zero,
        orders=zero,
        focus=focus,
        focus_is_known=np.zeros(count, dtype=bool),
        focus_before=focus,
        cart=np.full((count, CART_SLOTS), NOTHING),
        bought=nothing,
        searched=nothing,
        belief=np.tile(world.law.first, (count, 1)),
    )


def _step(world: World, now: _Shoppers, rng: np.random.Generator) -> Rows:
    """Let everyone act once: draw what happens, show it to the observer, move the visible state, return the rows."""
    count = len(now)
    day = np.minimum(now.now_ms() // DAY_MS, world.days - 1)
    in_cart = now.cart_count()
    action = world.action.draw(now.state, rng.random(count))
    action[((action == ADD) & (in_cart == CART_SLOTS)) | ((action == REMOVE) & (in_cart == 0))] = LOOK
    relation, looked_at = _looks(world, now, action, day, rng)
    modifier = np.where(action == SEARCH, world.modifier.draw(now.state, rng.random(count)), UNSEEN)
    seen = Observation(
        action=action,
        relation=relation,
        modifier=modifier,
        ticks=now.waited,
        is_cart_full=in_cart == CART_SLOTS,
        is_cart_empty=in_cart == 0,
        is_cheapest=world.catalogue.is_cheapest(now.focus),
        is_dearest=world.catalogue.is_dearest(now.focus),
    )
    is_first = now.step[0] == 0  # all came in together
    now.belief = first_belief(world.law, seen) if is_first else next_belief(world.law, now.belief, seen)
    in_mind = _search_aim(world, now, day, rng)
    query = world.catalogue.query_number(
        in_mind,
        now.language(),
        rng.integers(QUERY_FORMS, size=count),
        np.maximum(modifier, 0),
    )
    item = np.select(
        [action == LOOK, action == ADD, action == REMOVE, (action == RATE) | (action == REFUND), action == BUY],
        [looked_at, now.focus, now.cart[:, 0], now.bought, np.where(in_cart > 0, now.cart[:, 0], now.focus)],
        NOTHING,
    )
    rows = _rows(world, now, action, item, np.where(action == SEARCH, query, NOTHING), rng)
    _remember(now, action, item, in_mind)
    return rows


def _looks(world: World, now: _Shoppers, action: Ints, day: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Return relation (UNSEEN where the observer learns nothing from it) and item, as if everyone looked."""
    count, catalogue = len(now), world.catalogue
    relation = world.relation.draw(now.state, rng.random(count))
    relation[(relation == CHEAPER) & catalogue.is_cheapest(now.focus)] = DEARER
    relation[(relation == DEARER) & catalogue.is_dearest(now.focus)] = CHEAPER
    leaf = catalogue.leaf_of[now.focus]
    low = np.where(relation == DEARER, now.focus + 1, catalogue.leaf_start[leaf])
    high = np.where(relation == CHEAPER, now.focus, catalogue.leaf_start[leaf + 1])
    elsewhere = _leaf_elsewhere(world, now, leaf, day, rng)
    low = np.where(relation == ELSEWHERE, catalogue.leaf_start[elsewhere], low)
    high = np.where(relation == ELSEWHERE, catalogue.leaf_start[elsewhere + 1], high)
    item = catalogue.choice.draw(day * STYLES + now.style, rng.random(count), low, high)
    fits = (now.focus_before >= low) & (now.focus_before < high)
    other_leaf = (relation == ELSEWHERE) & (catalogue.leaf_of[now.focus_before] != leaf)
    item = np.where((fits | other_leaf) & (rng.random(count) < _GO_BACK_RATIO), now.focus_before, item)
    item = np.where((relation == SAME_ITEM) | ~now.focus_is_known, now.focus, item)
    has_searched = now.searched != NOTHING
    hit = rng.random(count) < _HIT_RATIO
    wanted_leaf = catalogue.leaf_of[np.maximum(now.searched, 0)]
    result = np.where(hit, now.searched, _item_in_leaf(world, now.style, day, wanted_leaf, rng))
    is_told = (action == LOOK) & now.focus_is_known & ~has_searched
    return np.where(is_told, relation, UNSEEN), np.where(has_searched, result, item)


def _leaf_elsewhere(world: World, now: _Shoppers, leaf: Ints, day: Ints, rng: np.random.Generator) -> Ints:
    """Return a category by taste or demand that is not the one in focus."""
    chosen = _leaf_by_taste(world, now.favourites, day, rng)
    for favourite in now.favourites.T:
        chosen = np.where(chosen == leaf, favourite, chosen)
    return np.where(chosen == leaf, (leaf + 1) % world.catalogue.leaves, chosen)


def _leaf_by_taste(world: World, favourites: Ints, day: Ints, rng: np.random.Generator) -> Ints:
    place = np.searchsorted(np.cumsum(_FAVOURITE_SHARES), rng.random(len(day)), side="right")
    everyones = world.catalogue.demand.draw(day, rng.random(len(day)))
    own = favourites[np.arange(len(day)), np.minimum(place, FAVOURITES - 1)]
    return np.where(place < FAVOURITES, own, everyones)


def _item_in_leaf(world: World, style: Ints, day: Ints, leaf: Ints, rng: np.random.Generator) -> Ints:
    start = world.catalogue.leaf_start
    return world.catalogue.choice.draw(day * STYLES + style, rng.random(len(leaf)), start[leaf], start[leaf + 1])


def _search_aim(world: World, now: _Shoppers, day: Ints, rng: np.random.Generator) -> Ints:
    """Return the item each would search for now: half in the category in focus, half by taste."""
    stays = rng.random(len(now)) < 0.5
    leaf = np.where(stays, world.catalogue.leaf_of[now.focus], _leaf_by_taste(world, now.favourites, day, rng))
    return _item_in_leaf(world, now.style, day, leaf, rng)


def _rows(world: World, now: _Shoppers, action: Ints, item: Ints, query: Ints, rng: np.random.Generator) -> Rows:
    """Return one row per shopper, and for an order one per item in the cart."""
    count = len(now)
    copies = np.where(action == BUY, np.maximum(now.cart_count(), 1), 1)
    who = np.repeat(np.arange(count), copies)
    slot = np.arange(len(who)) - np.repeat(np.cumsum(copies) - copies, copies)
    wall = now.now_ms()
    posterior = purchase_probability(now.belief, world.within, ticks_within(wall, world.horizon_hours))
    was_search = (now.searched != NOTHING).astype(int)
    quantity = np.where(
        (action == ADD) | (action == BUY) | (action == REMOVE) | (action == REFUND),
        1 + (rng.random(count) < 0.12) + (rng.random(count) < 0.03),
        0,
    )
    has_order = (action == BUY) | (action == RATE) | (action == REFUND)
    stars = np.searchsorted(np.cumsum(_STARS[:-1]), rng.random(count), side="right") + 1
    return Rows(
        user=now.user[who],
        language=now.language()[who],
        step=now.step[who],
        wall_ms=wall[who],
        action=action[who],
        is_click=((action == LOOK) & (rng.random(count) < np.array(_CLICK_RATIO)[was_search]))[who],
        item=np.where(slot > 0, now.cart[who, slot], item[who]),
        query=query[who],
        slot=slot,
        visit=now.visit[who],
        order=np.where(has_order, now.orders - (action != BUY), NOTHING)[who],
        quantity=quantity[who],
        stars=np.where(action == RATE, stars, 0)[who],
        posterior=posterior[who],
    )


def _remember(now: _Shoppers, action: Ints, item: Ints, in_mind: Ints) -> None:
    """Move focus, cart, orders and search to where they stand after the step."""
    looks, shows = action == LOOK, (action == LOOK) | (action == ADD)
    now.focus_before = np.where(looks & (item != now.focus), now.focus, now.focus_before)
    now.focus = np.where(looks, item, now.focus)
    now.focus_is_known = now.focus_is_known | shows
    now.searched = np.where(action == SEARCH, in_mind, NOTHING)
    now.bought = np.where(action == BUY, item, now.bought)
    now.orders = now.orders + (action == BUY)
    adds = np.flatnonzero((action == ADD) & ~(now.cart == item[:, None]).any(axis=1))
    now.cart[adds, now.cart_count()[adds]] = item[adds]
    removes = np.flatnonzero(action == REMOVE)
    now.cart[removes] = np.pad(now.cart[removes, 1:], ((0, 0), (0, 1)), constant_values=NOTHING)
    now.cart[action == BUY] = NOTHING


def _wait(world: World, now: _Shoppers, rng: np.random.Generator) -> _Shoppers:
    """Let time pass to the next step of those who have one."""
    kind = world.wait.draw(now.state, rng.random(len(now)))
    now, kind = now.only(kind != LEFT), kind[kind != LEFT]
    state = now.state.copy()
    for number, (waits, next_state) in enumerate(zip(world.wait_ticks, world.next_state, strict=True)):
        of_kind = np.flatnonzero(kind == number)
        now.waited[of_kind] = waits.draw(state[of_kind], rng.random(len(of_kind)))
        now.state[of_kind] = next_state.draw(state[of_kind], rng.random(len(of_kind)))
    now.tick = now.tick + now.waited
    now.visit = now.visit + (kind != IN_VISIT)
    now.step = now.step + 1
    now.cart[now.waited > CART_KEPT_TICKS] = NOTHING
    return now
