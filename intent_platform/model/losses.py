"""What the network is taught with: purchase, category and next item, added up."""

import torch
from torch import Tensor, nn

FULL_SOFTMAX_ITEMS = 20_000
"""Up to this many items every one is a negative; above, NEGATIVES are drawn."""

NEGATIVES = 4_096

WEIGHTS = {"buys": 1.0, "category": 0.2, "next_item": 0.3}


def next_item_loss(
    wanted_PD: Tensor, target_P: Tensor, item_vectors_ND: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Cross-entropy of the next item against all items, or against negatives shared by the batch.

    Drawn negatives stand for items / negatives others each, so their logits are raised by the log of that; without
    it the model learns a softmax over another catalogue (see docs/lab-book.md and benchmarks on sampled softmax).
    """
    items = len(item_vectors_ND)
    if items <= FULL_SOFTMAX_ITEMS:
        return nn.functional.cross_entropy(wanted_PD @ item_vectors_ND.T, target_P)
    drawn = torch.randint(items, (NEGATIVES,), generator=generator, device="cpu").to(target_P.device)
    negative = wanted_PD @ item_vectors_ND[drawn].T + torch.log(torch.tensor(items / NEGATIVES))
    negative = negative.masked_fill(drawn[None, :] == target_P[:, None], float("-inf"))
    positive = (wanted_PD * item_vectors_ND[target_P]).sum(1, keepdim=True)
    logits = torch.cat([positive, negative], dim=1)
    return nn.functional.cross_entropy(logits, torch.zeros_like(target_P))


def buy_loss(logits_E: Tensor, will_buy_E: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(logits_E, will_buy_E.float())
