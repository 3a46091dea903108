"""Training of the behaviour network: batches of packed windows, AdamW, early stopping, resumable after every epoch."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from intent_platform.log import get_logger
from intent_platform.model.examples import Examples, joined
from intent_platform.model.features import features
from intent_platform.model.inputs import Inputs, Packed, Windows, batches, pack, tile
from intent_platform.model.logistic import LogisticRegression
from intent_platform.model.losses import (
    FULL_SOFTMAX_ITEMS,
    NEGATIVES,
    WEIGHTS,
    buy_loss,
    next_item_loss,
)
from intent_platform.model.network import BehaviourNetwork, Shape, pick_device
from intent_platform.model.rows import Rows
from intent_platform.model.warm import Earlier, carry_over
from intent_platform.settings import Settings

ROWS_PER_BATCH = 2_048
STEPS_PER_EPOCH = 100  # at least, in smaller batches down to SMALLEST_BATCH: a small shop must not learn in five steps
SMALLEST_BATCH = 256
LEARNING_RATE = 2e-3
FINAL_RATE = 2e-5
WEIGHT_DECAY = {"buys": 1e-2, "next_item": 1e-3}
ID_DROPOUT = 0.15  # share of items that must do without their id in a step
PATIENCE_EPOCHS = 3
MOST_VALIDATED = 10_000
"""Next items of validation that are judged after each epoch, against every item: on Diginetica all of them took
nearly as long as the epoch itself. The same ones each time, so that epochs are compared on equal terms."""

HALVES = ("buys", "next_item")
"""The network's two halves share no weight, and each is kept from the epoch at which its validation loss, so named, was
least: on the 14-day shop of 2,000 users that was epoch 3 for purchases, while next items still gained at epoch 8."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """How large the next-item half is, how much of it is left out at random, and what its logits are.

    temperature: scales cosines. None: dot products of vectors whose lengths are learned.
    """

    width: int
    dropout: float
    temperature: float | None

    @property
    def name(self) -> str:
        return f"{self.width}-{self.dropout}-{self.temperature or 'free'}"


FORMS = (Form(width=128, dropout=0.25, temperature=16.0), Form(width=64, dropout=0.5, temperature=None))
"""Tried at a shop's first training; later ones keep the champion's. On Diginetica the first wins; on Amazon Beauty,
with a quarter of the events, it learns by heart from epoch 3 on, and the second wins, by more with learned lengths than
with scaled cosines (lab book)."""

AfterEpoch = Callable[[BehaviourNetwork], None]
"""Looks at the network after each epoch; what it draws at random must come from a generator of its own."""

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Material(Inputs):
    """Everything that training reads, in memory."""

    train: Examples
    validation: Examples
    train_features: np.ndarray  # float32 (len(train), F)
    validation_features: np.ndarray


@dataclass(kw_only=True)
class Progress:
    """progress.json beside the checkpoint: where a training stands."""

    epoch: int = 0  # finished epochs
    best_loss: dict[str, float] = field(default_factory=lambda: dict.fromkeys(HALVES, float("inf")))
    best_epoch: dict[str, int] = field(default_factory=lambda: dict.fromkeys(HALVES, 0))

    @property
    def is_over(self) -> bool:
        """Neither half has gained for PATIENCE_EPOCHS."""
        return self.epoch - max(self.best_epoch.values()) >= PATIENCE_EPOCHS


def make_material(inputs: Inputs, train: Examples, validation: Examples) -> Material:
    return Material(
        rows=inputs.rows,
        events=inputs.events,
        catalogue=inputs.catalogue,
        train=train,
        validation=validation,
        train_features=features(inputs.rows, train.position, train.asked_at),
        validation_features=features(inputs.rows, validation.position, validation.asked_at),
    )


def train_network(
    material: Material,
    folder: Path,
    settings: Settings,
    start: LogisticRegression | None = None,
    forms: Sequence[Form] = FORMS,
    after_epoch: AfterEpoch | None = None,
    earlier: Earlier | None = None,
) -> BehaviourNetwork:
    """The form with the least next-item loss on validation; each half from its best epoch.

    `folder` holds checkpoints; a stopped training goes on from there. start: what the purchase half begins as; None
    where the log has no purchases. That half is the same in every form, and is trained with the first. earlier: what
    the other half begins as, where one form is given; None: cold.
    """
    runs = [
        _train(
            material,
            folder / form.name,
            settings,
            start,
            form,
            HALVES if place == 0 else ("next_item",),
            after_epoch,
            earlier,
        )
        for place, form in enumerate(forms)
    ]
    network, progress = min(runs, key=lambda run: run[1].best_loss["next_item"])
    network.purchase.load_state_dict(runs[0][0].purchase.state_dict())
    facts: dict[str, Any] = {"width": network.shape.width, "next_item": round(progress.best_loss["next_item"], 4)}
    log.info("form_chosen", **facts)
    return network.eval()


def refit_next_items(
    material: Material, network: BehaviourNetwork, folder: Path, settings: Settings, earlier: Earlier | None = None
) -> BehaviourNetwork:
    """The network with its next-item half learned anew, from training and validation examples together.

    Validation has said how many epochs are best; the newest days are worth the most, and neighbours and rules look at
    them too. folder, earlier: as train_network had them. What is fitted on validation must be fitted before.
    """
    form = form_of(network)
    epochs = _read_progress(folder / form.name).best_epoch["next_item"]
    if not epochs:
        return network
    no_features = material.train_features[:0]  # they are for the other half
    together = replace(material, train=joined(material.train, material.validation), train_features=no_features)
    new, optimizer, progress = _begin(together, folder / f"{form.name}-refit", settings, None, form, earlier)
    windows = _windows(together.rows, together.train, settings)
    while progress.epoch < epochs:
        _one_epoch(new, optimizer, together, windows, progress.epoch, settings, ("next_item",))
        progress.epoch += 1
        log.info("epoch_refitted", width=form.width, epoch=progress.epoch, of=epochs)
        _save_checkpoint(new, optimizer, progress, folder / f"{form.name}-refit")
    new.purchase.load_state_dict(network.purchase.state_dict())
    new.feature_mean.copy_(network.feature_mean)
    new.feature_scale.copy_(network.feature_scale)
    return new.eval()


def form_of(network: BehaviourNetwork) -> Form:
    shape = network.shape
    return Form(width=shape.width, dropout=shape.dropout, temperature=shape.temperature)


def _begin(
    material: Material,
    folder: Path,
    settings: Settings,
    start: LogisticRegression | None,
    form: Form,
    earlier: Earlier | None,
) -> tuple[BehaviourNetwork, torch.optim.Optimizer, Progress]:
    """A new network, or where the folder's training stands."""
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    network = _new_network(material, settings, start, form, earlier).to(pick_device(settings.device))
    optimizer = _optimizer(network)
    folder.mkdir(parents=True, exist_ok=True)
    return network, optimizer, _resume(network, optimizer, folder)


def _train(
    material: Material,
    folder: Path,
    settings: Settings,
    start: LogisticRegression | None,
    form: Form,
    halves: Sequence[str],
    after_epoch: AfterEpoch | None = None,
    earlier: Earlier | None = None,
) -> tuple[BehaviourNetwork, Progress]:
    network, optimizer, progress = _begin(material, folder, settings, start, form, earlier)
    windows = _windows(material.rows, material.train, settings)
    writer = tensorboard(settings, folder.parent.parent, folder.name)
    if progress.epoch == 0:
        _keep_best(network, validation_losses(network, material, settings, halves), progress, folder)
    while progress.epoch < settings.max_epochs and not progress.is_over:
        train_losses = _one_epoch(network, optimizer, material, windows, progress.epoch, settings, halves)
        losses = validation_losses(network, material, settings, halves)
        progress.epoch += 1
        for name, value in losses.items():
            writer.add_scalar(f"validation/{name}", value, progress.epoch)
            writer.add_scalar(f"train/{name}", train_losses[name], progress.epoch)
        facts: dict[str, Any] = {name: round(value, 4) for name, value in losses.items()}
        log.info("epoch_trained", width=form.width, epoch=progress.epoch, **facts)
        _keep_best(network, losses, progress, folder)
        _save_checkpoint(network, optimizer, progress, folder)
        if after_epoch is not None:
            after_epoch(network)
    writer.close()
    best = {name: each for half in HALVES for name, each in load_file(folder / f"best-{half}.safetensors").items()}
    network.load_state_dict(best)
    return network, progress


def _keep_best(network: BehaviourNetwork, losses: dict[str, float], progress: Progress, folder: Path) -> None:
    for half in HALVES:
        if losses[half] < progress.best_loss[half]:
            progress.best_loss[half], progress.best_epoch[half] = losses[half], progress.epoch
            _save_tensors(_weights_of(network, half), folder / f"best-{half}.safetensors")


def _weights_of(network: BehaviourNetwork, half: str) -> dict[str, Tensor]:
    weights = network.state_dict()
    return {name: each for name, each in weights.items() if name.startswith("purchase.") == (half == "buys")}


def validation_losses(
    network: BehaviourNetwork, material: Material, settings: Settings, halves: Sequence[str] = HALVES
) -> dict[str, float]:
    """Mean losses per kind on the validation examples; 0 for a half that is not asked."""
    network.eval()
    windows = _windows(material.rows, material.validation, settings)
    data = (_with_few_targets(material.validation, settings), material.validation_features)
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    with torch.inference_mode():
        inputs = network.tower_inputs(material.catalogue)
        items = ItemVectors(vectors=network.tower(*inputs), category=inputs[2])
        for batch in batches(windows, ROWS_PER_BATCH):
            for name, (loss, count) in _losses(network, material, pack(batch), items, *data, halves).items():
                sums[name] = sums.get(name, 0.0) + float(loss) * count
                weights[name] = weights.get(name, 0) + count
    return _with_total({name: sums[name] / max(weights[name], 1) for name in sums})


def _with_few_targets(examples: Examples, settings: Settings) -> Examples:
    """The same examples, all but MOST_VALIDATED without their next item."""
    known = np.random.default_rng(settings.seed).permutation(np.flatnonzero(examples.next_item >= 0))
    next_item = np.full_like(examples.next_item, -1)
    next_item[known[:MOST_VALIDATED]] = examples.next_item[known[:MOST_VALIDATED]]
    return replace(examples, next_item=next_item)


def _with_total(losses: dict[str, float]) -> dict[str, float]:
    full = {name: losses.get(name, 0.0) for name in WEIGHTS}
    return {**full, "total": sum(WEIGHTS[name] * value for name, value in full.items())}


def _new_network(
    material: Material,
    settings: Settings,
    start: LogisticRegression | None,
    form: Form,
    earlier: Earlier | None = None,
) -> BehaviourNetwork:
    # Items that were only ever the last of a shopper are learned as targets.
    seen = np.unique(np.append(material.events.item[material.train.position], material.train.next_item))
    known = material.catalogue.item_ids.take(seen[seen >= 0]).to_pylist()
    shape = Shape(
        text_dimensions=material.catalogue.text_vectors.shape[1],
        window_events=settings.window_events,
        categories=sorted({name for name in material.catalogue.categories if name}),
        **asdict(form),
    )
    network = BehaviourNetwork(shape, known)
    if start is not None:
        network.purchase.start_as(start)
        network.feature_mean.copy_(torch.tensor(start.mean))
        network.feature_scale.copy_(torch.tensor(start.scale))
    if earlier is not None:
        carry_over(network, earlier)
    return network


def _windows(rows: Rows, examples: Examples, settings: Settings) -> Windows:
    """Windows that read out every example's position; each user's run begins one window before the first of them."""
    users, first = np.unique(rows.user[examples.position], return_index=True)
    last = np.append(first[1:], len(examples)) - 1
    begin = np.maximum(rows.starts[users], examples.position[first] - settings.window_events // 2)
    return tile(begin, examples.position[last] + 1, settings.window_events)


def _one_epoch(
    network: BehaviourNetwork,
    optimizer: torch.optim.Optimizer,
    material: Material,
    windows: Windows,
    epoch: int,
    settings: Settings,
    halves: Sequence[str],
) -> dict[str, float]:
    """epoch: from 0; it decides chance and learning rate."""
    network.train()
    chance = np.random.default_rng((settings.seed, epoch))
    rows = int((windows.stop - windows.start).sum())
    steps = list(batches(windows, int(np.clip(rows // STEPS_PER_EPOCH, SMALLEST_BATCH, ROWS_PER_BATCH)), chance))
    generator = torch.Generator().manual_seed(int(chance.integers(2**31)))
    torch.manual_seed(int(chance.integers(2**31)))
    tower_inputs = network.tower_inputs(material.catalogue)
    place = np.full(len(tower_inputs[0]), -1)
    sums: dict[str, list[float]] = {}
    for number, batch in enumerate(tqdm(steps, desc="epoch", unit="batch", mininterval=1.0)):
        for group in optimizer.param_groups:
            group["lr"] = _rate(number / len(steps), epoch=epoch, epochs=settings.max_epochs)
        packed = pack(batch)
        items = _item_vectors(network, material, packed, tower_inputs, place, generator)
        losses = _losses(network, material, packed, items, material.train, material.train_features, halves)
        total = sum((WEIGHTS[name] * loss for name, (loss, _) in losses.items()), start=items.vectors.sum() * 0)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        for group in optimizer.param_groups:
            torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
        optimizer.step()
        for name, (loss, _) in losses.items():
            sums.setdefault(name, []).append(float(loss.detach()))
    return _with_total({name: float(np.mean(values)) for name, values in sums.items()})


def _optimizer(network: BehaviourNetwork) -> torch.optim.Optimizer:
    of_purchase = list(network.purchase.parameters())
    known = set(map(id, of_purchase))
    others = [each for each in network.parameters() if id(each) not in known]
    groups = [
        {"params": each, "weight_decay": WEIGHT_DECAY[half]}
        for half, each in zip(HALVES, (of_purchase, others), strict=True)
    ]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)


def _rate(share: float, *, epoch: int, epochs: int) -> float:
    """Warm up over the first twentieth of all epochs, then a half cosine down to FINAL_RATE."""
    progress = (epoch + share) / epochs
    if progress < 0.05:
        return LEARNING_RATE * progress * 20
    return FINAL_RATE + (LEARNING_RATE - FINAL_RATE) / 2 * (1 + float(np.cos(np.pi * progress)))


def _drop_ids(inputs: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
    """An item without any text keeps its id: nothing else could stand for it."""
    ids, text = inputs[:2]
    kept = torch.rand(ids.shape, generator=generator).to(ids.device) >= ID_DROPOUT
    return (ids * (kept | ~text.any(dim=1)), *inputs[1:])


@dataclass(frozen=True, kw_only=True, eq=False)
class ItemVectors:
    """The items that one step looks at: the whole catalogue, or those it touches and drawn negatives."""

    vectors: Tensor  # (items, D)
    category: Tensor  # int64 (items,)
    place: np.ndarray | None = None  # int64 (N,): catalogue position → row; None: the same
    drawn: np.ndarray | None = None  # int64 (K,): catalogue positions of the negatives; None: every item is one

    def rows(self, positions: np.ndarray) -> np.ndarray:
        return positions if self.place is None else self.place[positions]


def _item_vectors(
    network: BehaviourNetwork,
    material: Material,
    packed: Packed,
    tower_inputs: tuple[Tensor, ...],
    place: np.ndarray,
    generator: torch.Generator,
) -> ItemVectors:
    """place: int64 (N,), overwritten; one array serves all steps, as a new one would cost more than the step."""
    count = len(tower_inputs[0])
    if count <= FULL_SOFTMAX_ITEMS:
        return ItemVectors(vectors=network.tower(*_drop_ids(tower_inputs, generator)), category=tower_inputs[2])
    drawn = torch.randint(count, (NEGATIVES,), generator=generator).numpy()
    touched = material.events.item[packed.row]
    wanted = material.train.next_item[_examples_at(material.train, packed.row)[0]]
    positions = np.unique(np.concatenate([drawn, touched[touched >= 0], wanted[wanted >= 0]]))
    place[positions] = np.arange(len(positions))
    inputs = tuple(each[_on(network, positions)] for each in tower_inputs)
    vectors = network.tower(*_drop_ids(inputs, generator))
    return ItemVectors(vectors=vectors, category=inputs[2], place=place, drawn=drawn)


def _losses(
    network: BehaviourNetwork,
    material: Material,
    packed: Packed,
    items: ItemVectors,
    examples: Examples,
    table: np.ndarray,
    halves: Sequence[str],
) -> dict[str, tuple[Tensor, int]]:
    """Each loss with the number of examples it is the mean of."""
    # A log without purchases says nothing about them.
    has_buys = "buys" in halves and bool(examples.will_buy.any())
    state = network(material.events, packed, items.vectors, items.place, is_purchase_read=has_buys)
    read_out = np.flatnonzero(packed.is_read_out)
    which, of = _examples_at(examples, packed.row[read_out])
    place = read_out[of]
    losses: dict[str, tuple[Tensor, int]] = {}
    if has_buys and len(which):
        logits = network.buy_logits(state[_on(network, place)], network.scaled(table[which]))
        losses["buys"] = (buy_loss(logits, _on(network, examples.will_buy[which])), len(which))
    has_next = examples.next_item[which] >= 0
    if has_next.any():
        target = examples.next_item[which[has_next]]
        states = state[_on(network, place[has_next])]
        losses["next_item"] = (_next_item_loss(network, states, target, items), len(target))
        category = items.category[_on(network, items.rows(target))]
        loss = torch.nn.functional.cross_entropy(network.category_logits(states), category)
        losses["category"] = (loss, len(target))
    return losses


def _next_item_loss(network: BehaviourNetwork, states: Tensor, target: np.ndarray, items: ItemVectors) -> Tensor:
    wanted, row = network.wanted_items(states), _on(network, items.rows(target))
    if items.drawn is None:
        hits = torch.arange(len(row), device=row.device), row
        return next_item_loss(wanted, items.vectors[row], items.vectors, hits, len(items.vectors))
    assert items.place is not None
    of_target, of_drawn = np.nonzero(items.drawn[None, :] == target[:, None])
    hits = _on(network, of_target), _on(network, of_drawn)
    drawn = items.vectors[_on(network, items.rows(items.drawn))]
    return next_item_loss(wanted, items.vectors[row], drawn, hits, len(items.place))


def _examples_at(examples: Examples, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All examples at the given rows: their numbers, and which of the rows each belongs to."""
    first = np.searchsorted(examples.position, rows)
    count = np.searchsorted(examples.position, rows, side="right") - first
    of = np.repeat(np.arange(len(rows)), count)
    return first[of] + np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count), of


def _on(network: BehaviourNetwork, values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(network.device)


def _resume(network: BehaviourNetwork, optimizer: torch.optim.Optimizer, folder: Path) -> Progress:
    progress = _read_progress(folder)
    if not progress.epoch:
        return progress
    stored = load_file(folder / f"last-{progress.epoch}.safetensors")
    network.load_state_dict({name[2:]: value for name, value in stored.items() if name.startswith("w.")})
    state = optimizer.state_dict()
    state["state"] = {}
    for name, value in stored.items():  # o.<number>.<what>; a part that had no input yet has none
        if name.startswith("o."):
            _, number, what = name.split(".")
            state["state"].setdefault(int(number), {})[what] = value
    optimizer.load_state_dict(state)
    log.info("training_resumed", epoch=progress.epoch, folder=folder)
    return progress


def _read_progress(folder: Path) -> Progress:
    path = folder / "progress.json"
    return Progress(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else Progress()


def _save_checkpoint(
    network: BehaviourNetwork, optimizer: torch.optim.Optimizer, progress: Progress, folder: Path
) -> None:
    """Weights first, then the file that names them: a crash in between goes on from the epoch before."""
    tensors = {f"w.{name}": value for name, value in network.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"o.{number}.{name}": value for name, value in state.items()}
    _save_tensors(tensors, folder / f"last-{progress.epoch}.safetensors")
    temporary = folder / "progress.json.writing"
    temporary.write_text(json.dumps(asdict(progress)), encoding="utf-8")
    temporary.replace(folder / "progress.json")
    (folder / f"last-{progress.epoch - 1}.safetensors").unlink(missing_ok=True)


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    temporary = path.with_suffix(".writing")
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, temporary)
    temporary.replace(path)


def tensorboard(settings: Settings, run: Path, part: str = "") -> Any:
    """A SummaryWriter; run: the training's folder, whose name is the run's; part: of the run."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(settings.home / "tensorboard" / run.name / part))
