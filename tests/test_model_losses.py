"""The next-item loss written in place is the cross-entropy it stands for, with its gradients."""

import math

import pytest
import torch
from torch import nn

from intent_platform.model import losses

P, K, D = 7, 30, 8


def vectors(seed: int, length: float = 16.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(seed)
    wanted, target, negative = (torch.randn(rows, D, generator=chance) for rows in (P, P, K))
    unit = nn.functional.normalize
    return tuple(
        each.requires_grad_() for each in (length * unit(wanted, dim=1), unit(target, dim=1), unit(negative, dim=1))
    )


def by_cross_entropy(wanted, target, negative, hits, items):
    logits = wanted @ negative.T + math.log(items / K)
    logits = logits.index_put(hits, torch.tensor(float("-inf")))
    own = (wanted * target).sum(1, keepdim=True)
    return nn.functional.cross_entropy(torch.cat([own, logits], dim=1), torch.zeros(P, dtype=torch.long))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_the_loss_and_its_gradients_are_those_of_cross_entropy(monkeypatch, kind):
    monkeypatch.setattr(losses, "negative_type", lambda _: kind)
    hits = torch.tensor([0, 3, 3]), torch.tensor([4, 1, 29])
    ours, plain = vectors(1), vectors(1)
    found, wanted = losses.next_item_loss(*ours, hits, 500), by_cross_entropy(*plain, hits, 500)
    (3 * found).backward()
    (3 * wanted).backward()
    closeness = 1e-5 if kind == torch.float32 else 0.02
    torch.testing.assert_close(found, wanted, rtol=closeness, atol=0)
    for one, other in zip(ours, plain, strict=True):
        assert (one.grad - other.grad).norm() < closeness * other.grad.norm()


def test_logits_beyond_what_an_exponential_holds_give_the_same_loss_and_gradients(monkeypatch):
    monkeypatch.setattr(losses, "negative_type", lambda _: torch.float32)
    hits = torch.tensor([0]), torch.tensor([4])
    ours, plain = vectors(1, length=400.0), vectors(1, length=400.0)
    found, wanted = losses.next_item_loss(*ours, hits, K), by_cross_entropy(*plain, hits, K)
    found.backward()
    wanted.backward()
    torch.testing.assert_close(found, wanted)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_with_every_item_a_negative_it_is_the_softmax_over_the_catalogue():
    wanted, _, items = vectors(2)
    target = torch.arange(P) * 4
    found = losses.next_item_loss(wanted, items[target], items, (torch.arange(P), target), K)
    torch.testing.assert_close(found, nn.functional.cross_entropy(wanted @ items.T, target), rtol=0.01, atol=0.01)
