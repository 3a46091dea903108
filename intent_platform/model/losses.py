"""What the network is taught with: purchase, category and next item, added up."""

import math
from functools import cache

import torch
from torch import Tensor, nn

FULL_SOFTMAX_ITEMS = 20_000
"""Up to this many items every one is a negative; above, NEGATIVES are drawn."""

NEGATIVES = 4_096

LARGEST_LOGIT = 60.0  # float32 holds the sum of 100 million exponentials of it

WEIGHTS = {"buys": 1.0, "category": 0.2, "next_item": 0.3}


def next_item_loss(
    wanted_PD: Tensor, target_PD: Tensor, negative_KD: Tensor, hits: tuple[Tensor, Tensor], items: int
) -> Tensor:
    """Cross-entropy of the next item against K negatives shared by the batch: all items, or some drawn uniformly.

    hits: (row, negative) where a negative is the row's own target, which must not count against itself.
    A drawn negative stands for items / K others, so its logit is raised by the log of that; without it the model learns
    a softmax over another catalogue (Jean et al. 2015, "On using very large target vocabulary for neural machine
    translation").
    A logit is at most the product of two lengths. Where that may pass LARGEST_LOGIT, the largest of a row is subtracted
    before exponentials; elsewhere that pass over all of them is saved.
    """
    shift = math.log(items / len(negative_KD))
    return _SharedSoftmax.apply(wanted_PD, target_PD, negative_KD, hits, shift, negative_type(wanted_PD.device))


@cache
def negative_type(device: torch.device) -> torch.dtype:
    """What logits of negatives are computed in: bfloat16 where the processor has it, else float32.

    Rounding moves such a logit by up to 0.06 of ± 16; the target's own logit stays float32.
    """
    can = torch.cpu.get_capabilities()
    is_fast = device.type == "cuda" or can.get("avx512_bf16") or can.get("amx_bf16")
    return torch.bfloat16 if is_fast else torch.float32


class _SharedSoftmax(torch.autograd.Function):
    """The loss in place: the (P, K) probabilities are most of a step's memory traffic, so they are made only once."""

    @staticmethod
    def forward(ctx, wanted, target, negative, hits, shift, kind):
        wanted_half, negative_half = wanted.to(kind), negative.to(kind)
        share = (wanted_half @ negative_half.T).float()
        share[hits] = float("-inf")
        share.add_(shift)
        own_logit = (wanted * target).sum(1)
        longest = torch.maximum(negative.norm(dim=1).max(), target.norm(dim=1).max())
        if wanted.norm(dim=1).max() * longest > LARGEST_LOGIT:
            largest = torch.maximum(share.amax(1), own_logit)
            share.sub_(largest[:, None])
            own_logit = own_logit - largest
        share.exp_()
        own = own_logit.exp()
        total = share.sum(1) + own
        share.div_(total[:, None])
        ctx.save_for_backward(wanted, target, wanted_half, negative_half, share.to(kind), own / total)
        return (total.log() - own_logit).mean()

    @staticmethod
    def backward(ctx, gradient):
        wanted, target, wanted_half, negative_half, share, own = ctx.saved_tensors
        gradient = gradient / len(wanted)
        of_own = (gradient * (own - 1))[:, None]
        of_wanted = gradient * (share @ negative_half).float() + of_own * target
        return of_wanted, of_own * wanted, gradient * (share.T @ wanted_half).float(), None, None, None


def buy_loss(logits_E: Tensor, will_buy_E: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(logits_E, will_buy_E.float())
