"""One transformer's forward pass over many texts: batches of one length each, bounded by tokens, mean of the tokens.

A batch holds texts of exactly one length in tokens, so nothing is padded or masked, and a text's vector does not
depend on the texts beside it: alone or among thousands it is the same bit for bit (on one machine).
B texts in a batch, T tokens in each, D hidden size
"""

import copy
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Precision = Literal["fp32", "bf16", "fp16"]

MAX_TOKENS = 64
"""Titles and queries are short; a longer text is cut."""

TOKENS_PER_BATCH = {"cpu": 2_048, "cuda": 32_768}
"""On two cores 1,024 to 4,096 tokens are equally fast and 8,192 a fifth slower: the batch leaves the caches."""

PROBES = (
    "running shoes",
    "红色运动鞋 新款",
    "usb-c charger 65w",
    "HP 74 Black & 75 Tri-color Original Ink Cartridges, 2 Cartridges (CB335WN, CB337WN)",
    "Sparco Invisible Tape, 3/4 x 1000 Inches, 1-Inch Core, 12-Pack, Clear (SPR60050)",
    "Astrobrights Color Paper, 8.5” x 11”, 24 lb/89 gsm, Lunar Blue, 500 Sheets (21528)",
    "What can I do if my card still hasn't arrived after 2 weeks?",
    "wireless noise cancelling headphones black",
    "无线降噪耳机 长续航",
    "iphone",
    "Kaffeemühle elektrisch mit Kegelmahlwerk",
    "zapatillas de montaña impermeables talla 43",
    "кроссовки мужские",
    "electronics audio headphones",
    "a",
    "XK-2041/b",
    "gift for my father who likes fishing and old watches",
    "soft cotton hoodie plus size autumn 大码 卫衣",
    "desk",
    "Stainless steel electric kettle 1.7 l with temperature control, keep warm, auto shut-off, BPA free, 2200 W",
)
"""What a precision is judged on: short and long, several scripts, numbers and model names."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Transformer:
    """A Hugging Face encoder in memory, at one precision, on one device."""

    tokenizer: Any  # a fast tokenizer
    network: Any  # a transformers encoder in eval mode
    precision: Precision = "fp32"

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def embed(self, texts: list[str]) -> np.ndarray:
        """float32 (len(texts), D): mean of the last layer's token vectors, scaled to length 1."""
        tokens = self.tokenizer(
            texts, truncation=True, max_length=MAX_TOKENS, return_attention_mask=False, return_token_type_ids=False
        )["input_ids"]
        lengths = np.array([len(each) for each in tokens], np.int64)
        found = np.zeros((len(texts), int(self.network.config.hidden_size)), np.float32)
        with torch.inference_mode():
            for batch in batches_of_one_length(lengths, TOKENS_PER_BATCH[self.device.type]):
                ids_BT = torch.tensor([tokens[each] for each in batch], device=self.device)
                hidden_BTD = self.network(input_ids=ids_BT).last_hidden_state
                found[batch] = mean_of_tokens(hidden_BTD, torch.ones_like(ids_BT)).cpu().numpy()
        return found

    def at(self, precision: Precision) -> "Transformer":
        """A copy whose weights and activations are of that precision; pooling stays float32."""
        if precision == self.precision:
            return self
        kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        return replace(self, network=copy.deepcopy(self.network).to(kind), precision=precision)


def load_transformer(folder: Path, device: torch.device) -> Transformer:
    """Read a folder in Hugging Face form at float32, with PyTorch's fused attention."""
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    network = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    return Transformer(
        tokenizer=AutoTokenizer.from_pretrained(folder, local_files_only=True), network=network.eval().to(device)
    )


def batches_of_one_length(lengths: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """Positions in groups of equal length, longest first, each group of at most `tokens` tokens (or one text)."""
    order = np.argsort(-lengths, kind="stable")
    for run in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        if len(run) and lengths[run[0]]:
            most = max(tokens // int(lengths[run[0]]), 1)
            yield from np.split(run, range(most, len(run), most))


def mean_of_tokens(hidden_BTD: Tensor, is_token_BT: Tensor) -> Tensor:
    """float32 (B, D), unit length: how sentence-transformers pools, and what all-MiniLM-L6-v2 was trained with."""
    is_token_BT1 = is_token_BT.unsqueeze(-1).float()
    mean_BD = (hidden_BTD.float() * is_token_BT1).sum(1) / is_token_BT1.sum(1).clamp(min=1)
    return torch.nn.functional.normalize(mean_BD, dim=1)


def fast_precision(device: torch.device) -> Precision:
    """The shortest format that the processor multiplies natively; where it only imitates one, fp32 is faster."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    can = torch.cpu.get_capabilities()
    return "bf16" if can.get("avx512_bf16") or can.get("amx_bf16") else "fp32"


def conditions(precision: Precision, device: torch.device) -> str:
    """What a parity check holds for: other kernels round otherwise."""
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return f"{precision} on {processor}, torch {torch.__version__}"


def least_cosine(one: Transformer, other: Transformer) -> float:
    """The worst agreement of two precisions over PROBES."""
    texts = list(PROBES)
    return float(np.min(np.sum(one.embed(texts) * other.embed(texts), axis=1)))
