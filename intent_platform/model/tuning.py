"""Tune the text encoder to a shop: (query, or titles of a history) → the item it led to, by LoRA or AdaLoRA.

Symmetric InfoNCE over cosines (van den Oord et al. 2018; CLIP's form) with the batch's other items and one hard
negative per pair as wrong answers. Only low-rank additions are learned; they are merged into the weights for serving.
B pairs in a batch, D dimensions, N items, P pairs
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from intent_platform.log import get_logger
from intent_platform.model.behaviour import ENCODER
from intent_platform.model.encoding import MAX_TOKENS, mean_of_tokens
from intent_platform.model.examples import Examples
from intent_platform.model.parts import digest_of_file
from intent_platform.model.rows import Rows
from intent_platform.model.text import Encoder, encoder_in, text_key
from intent_platform.settings import Settings

ADAPTER = "adapter"
REPORT = "tuning.json"

TITLES = 2  # of a history: its newest; long titles fill MAX_TOKENS with two
MAX_PAIRS = 10_000  # newest of each kind
MIN_PAIRS = 200  # below, held-out figures are noise and nothing is tuned
HELD_OUT_SHARE = 0.2  # the newest pairs: chosen by time, as serving meets them
MAX_HELD_OUT = 1_000  # of each kind
MAX_RANKED = 5_000  # items among which a held-out item is sought

PAIRS_PER_BATCH = 64
HARD_NEGATIVES = 32  # nearest wrong items by the frozen encoder, of which each step draws one
SAME_CATEGORY_SHARE = 0.5  # of hard negatives drawn from the item's category instead
TEMPERATURE = 0.05  # sentence-transformers' scale of 20
RANK, INITIAL_RANK = 8, 12  # AdaLoRA prunes from INITIAL_RANK to RANK on average
LEARNING_RATE = {"lora": 5e-4, "adalora": 2e-3}
EVALUATIONS = 5  # in a full run
PATIENCE = 2  # evaluations without a better one

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """P pairs in order of time, over a catalogue of N items."""

    asked: list[str]  # a query, or the titles of a history, newest first
    item: np.ndarray  # int64 (P,): the item it led to
    own: list[tuple[int, ...]]  # items that a history names: neither right nor wrong answers to it; () for a query
    is_query: np.ndarray  # bool (P,)
    texts: list[str]  # (N,)
    category: np.ndarray  # int64 (N,), −1 for none

    def __len__(self) -> int:
        return len(self.asked)

    def take(self, which: np.ndarray) -> "Pairs":
        return replace(
            self,
            asked=[self.asked[each] for each in which],
            item=self.item[which],
            own=[self.own[each] for each in which],
            is_query=self.is_query[which],
        )

    def answers(self) -> dict[str, set[int]]:
        """Every item that a text led to or names: none of them is a wrong answer to it."""
        found: dict[str, set[int]] = {}
        for asked, item, own in zip(self.asked, self.item.tolist(), self.own, strict=True):
            found.setdefault(asked, set()).update((item, *own))
        return found

    def split(self) -> tuple["Pairs", "Pairs"]:
        """The older for training, the newest to be held out; the same share of both kinds."""
        old, new = [], []
        for kind in (False, True):
            which = np.flatnonzero(self.is_query == kind)
            held_out = min(int(len(which) * HELD_OUT_SHARE), MAX_HELD_OUT)
            old.append(which[: len(which) - held_out])
            new.append(which[len(which) - held_out :])
        return self.take(np.sort(np.concatenate(old))), self.take(np.sort(np.concatenate(new)))


def pairs_of(rows: Rows, item: np.ndarray, train: Examples, texts: list[str], category: np.ndarray) -> Pairs:
    """Pairs of the training days: each search with the first item looked at after it, each item with the next other.

    item: (R,) catalogue positions or −1. A search counts if the item follows in the same session, on a training day,
    before another search; a history's next item is the example's own, so it lies within the horizon behind its row.
    """
    places = np.unique(train.position[~train.is_day_end])
    queries = _after_searches(rows, item, places)
    histories = train.take(np.flatnonzero((train.next_item >= 0) & ~train.is_day_end & (item[train.position] >= 0)))
    queries, histories = queries[-MAX_PAIRS:], _distinct_newest(rows, histories)
    own = [_last_items(rows, item, place) for place in histories.position.tolist()]
    keys = [text_key(each) for each in rows.table["query_text"].take(queries[:, 0]).to_pylist()]
    titles = [". ".join(texts[each] for each in reversed(items)) for items in own]
    at = np.concatenate([rows.at[queries[:, 0]], rows.at[histories.position]])
    wanted = np.concatenate([item[queries[:, 1]], histories.next_item])
    together = Pairs(
        asked=keys + titles,
        item=wanted,
        own=[()] * len(keys) + own,
        is_query=np.arange(len(at)) < len(keys),
        texts=texts,
        category=category,
    )
    is_new = np.array([target not in items for target, items in zip(wanted.tolist(), together.own, strict=True)], bool)
    order = np.argsort(at, kind="stable")
    return together.take(order[is_new[order]])


def _after_searches(rows: Rows, item: np.ndarray, places: np.ndarray) -> np.ndarray:
    """int64 (S, 2) in order of time: row of a search, row of the item that followed."""
    is_search = rows.is_type("search") & rows.table["query_text"].is_valid().to_numpy()
    is_train = np.zeros(len(rows) + 1, bool)
    is_train[places] = True
    searches = places[is_search[places]]
    next_item, next_search = _next_row(item >= 0)[searches], _next_row(is_search)[searches]
    there = np.minimum(next_item, max(len(rows) - 1, 0))
    is_answered = (
        is_train[next_item]
        & (next_item < next_search)
        & (rows.user[there] == rows.user[searches])
        & (rows.session_at[there] == rows.session_at[searches])
    )
    found = np.stack([searches, next_item], axis=1)[is_answered]
    return found[np.argsort(rows.at[found[:, 0]], kind="stable")]


def _next_row(is_wanted: np.ndarray) -> np.ndarray:
    """int64 (R,): the first wanted row behind each; R where there is none."""
    count = len(is_wanted)
    at_or_after = np.minimum.accumulate(np.where(is_wanted, np.arange(count), count)[::-1])[::-1]
    return np.append(at_or_after[1:], count)[:count]


def _distinct_newest(rows: Rows, examples: Examples) -> Examples:
    """The newest MAX_PAIRS, in order of time; a row that only repeats its user's item and answer before is left out."""
    code = rows.item[0][examples.position]
    same = (np.diff(examples.user) == 0) & (np.diff(code) == 0) & (np.diff(examples.next_item) == 0)
    kept = examples.take(np.flatnonzero(np.append(True, ~same)[: len(examples)]))
    return kept.take(np.argsort(rows.at[kept.position], kind="stable")[-MAX_PAIRS:])


def _last_items(rows: Rows, item: np.ndarray, place: int) -> tuple[int, ...]:
    """The last few distinct items of the user at a row, oldest first."""
    first = int(rows.starts[rows.user[place]])
    window = item[max(first, place - 10 * TITLES) : place + 1]
    seen = dict.fromkeys(int(each) for each in window[::-1] if each >= 0)
    return tuple(reversed(list(seen)[:TITLES]))


def tune_encoder(pairs: Pairs, encoder: Encoder, settings: Settings, folder: Path) -> Encoder:
    """The encoder tuned to the pairs, or `encoder` itself where that did not help on the newest of them.

    Writes folder/encoder (merged, in Hugging Face form), folder/adapter (peft's form) and folder/tuning.json (figures
    and decision), without times or names of machines: equal input gives equal bytes on one machine. A folder that has
    its tuning.json is not tuned again.
    """
    if encoder.folder is None:
        return encoder
    if not (folder / REPORT).exists():
        _tune(pairs, encoder, settings, folder)
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    log.info("encoder_tuned", encoder=encoder.name, report=report)
    if not report["is_kept"]:
        return encoder
    return encoder_in(folder / ENCODER, f"{encoder.name}+{report['method']}", settings)


def _tune(pairs: Pairs, encoder: Encoder, settings: Settings, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in (ENCODER, ADAPTER):
        shutil.rmtree(folder / name, ignore_errors=True)
    facts: dict[str, Any] = {"method": settings.encoder_tuning, "base_digest": encoder.digest, "pairs": len(pairs)}
    if len(pairs) < MIN_PAIRS:
        facts |= {"is_kept": False, "reason": f"too_few_pairs: {len(pairs)} of {MIN_PAIRS}"}
    else:
        tuning = Tuning(pairs, encoder, settings)
        frozen = tuning.figures()
        facts |= {"frozen": frozen, "best_step": tuning.fit(), "tuned": tuning.figures()}
        behind = behind_in(facts["tuned"], frozen)
        facts |= {"is_kept": not behind, "reason": "; ".join(behind) or "not behind the frozen encoder"}
        if not behind:
            tuning.save(folder)
            facts["digest"] = digest_of_file(folder / ENCODER / "model.safetensors")
    (folder / REPORT).write_text(json.dumps(facts, indent=1, sort_keys=True), encoding="utf-8")


def behind_in(tuned: dict[str, float], frozen: dict[str, float]) -> list[str]:
    """Where the tuned encoder is worse; queries and histories count each for themselves."""
    return [f"{name}: {tuned[name]:.4f} < {frozen[name]:.4f}" for name in frozen if tuned[name] < frozen[name]]


def figures_of(embed: Callable[[list[str]], np.ndarray], pairs: Pairs, among: np.ndarray) -> dict[str, float]:
    """recall@10 and MRR by kind of pair, each item sought among the items `among`, those of its history left out."""
    vectors = embed([pairs.texts[each] for each in among])
    column = {item: place for place, item in enumerate(among.tolist())}
    scores = embed(pairs.asked) @ vectors.T
    wanted = np.array([column[item] for item in pairs.item.tolist()], np.int64)
    for row, own in enumerate(pairs.own):
        scores[row, [column[item] for item in own if item in column]] = -np.inf
    rank = (scores >= np.take_along_axis(scores, wanted[:, None], axis=1)).sum(axis=1)
    found = {}
    for kind, mask in (("query", pairs.is_query), ("history", ~pairs.is_query)):
        if mask.any():
            found[f"{kind}_recall_at_10"] = round(float((rank[mask] <= 10).mean()), 6)
            found[f"{kind}_mrr"] = round(float((1 / rank[mask]).mean()), 6)
    return found


class Tuning:
    """An encoder with an adapter on top, the pairs it learns from and those it is judged on."""

    def __init__(self, pairs: Pairs, encoder: Encoder, settings: Settings) -> None:
        self.method, self.steps = settings.encoder_tuning, settings.encoder_tuning_steps
        self.chance = np.random.default_rng(settings.seed)
        self.train, self.held_out = pairs.split()
        self.among = _among(self.held_out, self.chance)
        self.answers = self.train.answers()
        self.negatives = nearest_wrong(self.train, encoder, self.answers)
        self.base_name, self.precision = encoder.name, encoder.precision
        torch.manual_seed(settings.seed)
        transformer = encoder.load()
        self.transformer = replace(transformer, network=self._with_adapter(transformer.network).eval())

    @property
    def network(self) -> Any:  # a peft.PeftModel
        return self.transformer.network

    def figures(self) -> dict[str, float]:
        with self._autocast():
            return figures_of(self.transformer.embed, self.held_out, self.among)

    def fit(self) -> int:
        """Learn until the held-out MRR stops rising; leave the best weights in place and return their step.

        The network stays in eval mode: drawing dropout masks costs an eighth of a step, and a low rank and early
        stopping bound what can be learned by heart.
        """
        parameters = [each for each in self.network.parameters() if each.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE[self.method], weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._learning_rate_ratio)
        best_mrr, best_step, best = -1.0, 0, [each.detach().clone() for each in parameters]
        worse = 0
        for step, batch in enumerate(self._batches(), start=1):
            optimizer.zero_grad()
            self._loss(batch).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            if self.method == "adalora":
                self.network.base_model.update_and_allocate(step)
            if step % max(self.steps // EVALUATIONS, 1) or step < self._first_choice:
                continue
            figures = self.figures()
            mrr = float(np.mean([value for name, value in figures.items() if name.endswith("mrr")]))
            log.info("tuning_step", step=step, figures=figures)
            worse = 0 if mrr > best_mrr else worse + 1
            if mrr > best_mrr:
                best_mrr, best_step, best = mrr, step, [each.detach().clone() for each in parameters]
            if worse >= PATIENCE:
                break
        with torch.no_grad():
            for each, kept in zip(parameters, best, strict=True):
                each.copy_(kept)
        return best_step

    def save(self, folder: Path) -> None:
        """Write the adapter, then the encoder with the adapter merged into it."""
        self.network.save_pretrained(folder / ADAPTER)
        _without_machine(folder / ADAPTER, self.base_name)
        merged = self.network.merge_and_unload()
        merged.save_pretrained(folder / ENCODER)
        self.transformer.tokenizer.save_pretrained(folder / ENCODER)

    def _with_adapter(self, network: Any) -> Any:
        from peft import AdaLoraConfig, LoraConfig, get_peft_model

        # The pooler's output is not used, so it has no gradient, which AdaLoRA's importance scores cannot bear.
        shared: dict[str, Any] = {"target_modules": "all-linear", "exclude_modules": r".*pooler.*", "lora_alpha": 16}
        if self.method == "lora":
            return get_peft_model(network, LoraConfig(r=RANK, **shared))
        return get_peft_model(
            network,
            AdaLoraConfig(
                target_r=RANK,
                init_r=INITIAL_RANK,
                total_step=self.steps,
                tinit=self.steps // 10,
                tfinal=self.steps - self._first_choice,
                deltaT=max(self.steps // 50, 1),
                **shared,
            ),
        )

    @property
    def _first_choice(self) -> int:
        """The first step whose weights may be kept: AdaLoRA's only once its ranks are final."""
        return self.steps * 6 // 10 if self.method == "adalora" else 1

    def _learning_rate_ratio(self, step: int) -> float:
        """Rise over the first tenth, then fall to 0."""
        warm = max(self.steps // 10, 1)
        return min((step + 1) / warm, max(self.steps - step, 0) / max(self.steps - warm, 1))

    def _batches(self) -> Iterator[np.ndarray]:
        """`steps` batches of pairs, each pair once before any comes again."""
        order = np.zeros(0, np.int64)
        for _ in range(self.steps):
            if len(order) < PAIRS_PER_BATCH:
                order = np.concatenate([order, self.chance.permutation(len(self.train))])
            yield order[:PAIRS_PER_BATCH]
            order = order[PAIRS_PER_BATCH:]

    def _loss(self, batch: np.ndarray) -> Tensor:
        pairs = self.train.take(batch)
        items = np.concatenate([pairs.item, self._hard(batch)])
        with self._autocast(), sdpa_kernel(SDPBackend.MATH):  # on a CPU the fused form's backward pass is slower
            asked_BD = self._vectors(pairs.asked)
            items_2BD = self._vectors([self.train.texts[each] for each in items])
        logits_B2B = asked_BD @ items_2BD.T / TEMPERATURE
        is_wrong = np.stack(
            [~np.isin(items, list(self.answers[asked])) for asked in pairs.asked]
        )  # an answer to the same text is no wrong one
        is_own = np.arange(len(items)) == np.arange(len(batch))[:, None]
        hidden_B2B = torch.from_numpy(~(is_wrong | is_own)).to(logits_B2B.device)
        logits_B2B = logits_B2B.masked_fill(hidden_B2B, -torch.inf)
        target_B = torch.arange(len(batch), device=logits_B2B.device)
        loss = torch.nn.functional.cross_entropy(logits_B2B, target_B)
        loss = (loss + torch.nn.functional.cross_entropy(logits_B2B[:, : len(batch)].T, target_B)) / 2
        return loss + self._orthogonality() if self.method == "adalora" else loss

    def _hard(self, batch: np.ndarray) -> np.ndarray:
        """int64 (B,): for each pair one of its nearest wrong items, or one of the right item's category."""
        near = self.negatives[batch, self.chance.integers(0, self.negatives.shape[1], len(batch))]
        category = self.train.category[self.train.item[batch]]
        draws = self.chance.random((2, len(batch)))
        for row in np.flatnonzero((draws[0] < SAME_CATEGORY_SHARE) & (category >= 0)):
            alike = np.flatnonzero(self.train.category == category[row])
            near[row] = alike[int(draws[1, row] * len(alike))]
        return near

    def _vectors(self, texts: list[str]) -> Tensor:
        batch = self.transformer.tokenizer(
            texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(self.transformer.device)
        hidden_BTD = self.network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        return mean_of_tokens(hidden_BTD.last_hidden_state, batch["attention_mask"])

    def _autocast(self) -> AbstractContextManager:
        kind = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.bfloat16}[self.precision]
        return torch.autocast(self.transformer.device.type, dtype=kind, enabled=kind is not None)

    def _orthogonality(self) -> Tensor:
        """AdaLoRA's regularisation (Zhang et al. 2023, eq. 4); peft adds it only to models that compute a loss."""
        config = self.network.peft_config["default"]
        found = []
        for name, each in self.network.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                square = each @ each.T if "lora_A" in name else each.T @ each
                found.append(torch.norm(square - torch.eye(len(square), device=square.device)))
        return config.orth_reg_weight * torch.stack(found).mean()


def nearest_wrong(pairs: Pairs, encoder: Encoder, answers: dict[str, set[int]]) -> np.ndarray:
    """int64 (P, up to HARD_NEGATIVES): the items nearest to each text by the frozen encoder, its answers left out."""
    items = encoder.encode(pairs.texts)
    count = max(min(HARD_NEGATIVES, len(items) - 1), 1)
    found = np.zeros((len(pairs), count), np.int64)
    for start in range(0, len(pairs), 256):
        asked = pairs.asked[start : start + 256]
        scores = encoder.transformer.embed(asked) @ items.T
        for row, text in enumerate(asked):
            scores[row, list(answers[text])] = -np.inf
        found[start : start + 256] = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    return found


def _among(held_out: Pairs, chance: np.random.Generator) -> np.ndarray:
    """int64: every item that is sought, and of the rest as many at random as make MAX_RANKED."""
    sought = np.unique(held_out.item)
    rest = np.setdiff1d(np.arange(len(held_out.texts)), sought)
    more = chance.permutation(rest)[: max(MAX_RANKED - len(sought), 0)]
    return np.sort(np.concatenate([sought, more]))


def _without_machine(adapter: Path, base_name: str) -> None:
    """Take out of peft's files what differs between equal trainings: the base's path, the order of sets, a README."""
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_name
    config = {name: sorted(each) if isinstance(each, list) else each for name, each in config.items()}
    path.write_text(json.dumps(config, indent=1, sort_keys=True), encoding="utf-8")
    (adapter / "README.md").unlink(missing_ok=True)
