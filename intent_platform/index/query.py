"""What a search says beside its words: a price range, and categories that it names."""

import re
from dataclasses import dataclass, replace

from intent_platform.model.text import text_key

MOST_LETTERS = 1_000
"""A longer query is cut: nobody types more, and it would only be counted."""

_NUMBER = r"(\d{1,3}(?:,\d{3})+|\d+(?:[.,]\d{1,2})?)(?![.,]?\d)"
_SIGN, _CURRENCY = r"[$€£¥]", r"(?:usd|eur|gbp|cny|rmb|dollars?|euros?|pounds?)\b"
_UNITS = r"\"|%|inch|in\b|cm|mm|m\b|ft|feet|gb|tb|mb|oz|lbs?\b|kg|g\b|ml|l\b|w\b|watts?|pages?|years?|packs?"
_UNIT = rf"(?!\s*(?:{_UNITS}))"  # what follows a number that is no price
_MONEY = rf"(?:{_SIGN}|{_CURRENCY})?\s*{_NUMBER}{_UNIT}(?:\s*(?:{_SIGN}|{_CURRENCY}|元|块))?(?!\w)"
_YUAN = rf"{_NUMBER}\s*(?:元|块)"

_BETWEEN = re.compile(
    rf"\b(?:between|from)\s+{_MONEY}\s*(?:and|to|[-–])\s*{_MONEY}|{_NUMBER}\s*(?:元|块)?\s*(?:到|至|~|-)\s*{_YUAN}"
)
_BELOW = re.compile(
    rf"(?:\b(?:under|below|less than|cheaper than|up to|at most)\s|<=?)\s*{_MONEY}|"
    rf"(?:低于|不到|少于|小于)\s*{_NUMBER}(?:\s*[元块])?|{_NUMBER}\s*[元块]?\s*(?:以下|以内|之内)"
)
_ABOVE = re.compile(
    rf"(?:\b(?:over|above|more than|at least)\s|>=?)\s*{_MONEY}|"
    rf"(?:高于|超过|大于)\s*{_NUMBER}(?:\s*[元块])?|{_NUMBER}\s*[元块]?\s*以上"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """A search, understood."""

    text: str  # without the words about the price; as text_key; empty where there is no letter and no digit
    price_low: float | None = None
    price_high: float | None = None
    is_cut: bool = False  # it had more than MOST_LETTERS

    @property
    def has_price(self) -> bool:
        return self.price_low is not None or self.price_high is not None


def understand(raw: str) -> Query:
    """ "wireless mouse under 30" → "wireless mouse", at most 30. A number without such a word stays a word."""
    text = text_key(raw[:MOST_LETTERS].encode("utf-8", "ignore").decode())  # half a surrogate pair is no letter
    query = Query(text=text if re.search(r"\w", text) else "", is_cut=len(raw) > MOST_LETTERS)
    for pattern in (_BETWEEN, _BELOW, _ABOVE):
        found = pattern.search(query.text)
        if found is None:
            continue
        numbers = sorted(_number(each) for each in found.groups() if each is not None)
        rest = text_key(query.text[: found.start()] + " " + query.text[found.end() :])
        low = query.price_low if pattern is _BELOW else numbers[0]
        high = query.price_high if pattern is _ABOVE else numbers[-1]
        query = replace(query, text=rest, price_low=low, price_high=high)
    return query


def _number(text: str) -> float:
    """1,000 is a thousand, 1,50 one and a half."""
    return float(text.replace(",", "") if re.search(r",\d{3}", text) else text.replace(",", "."))


def named_categories(text: str, names: list[str]) -> list[int]:
    """Numbers of the categories the last part of whose path the text says, whole."""
    said = {_stem(word) for word in re.findall(r"\w+", text)}
    return [number for number, name in enumerate(names) if (words := _last_words(name)) and words <= said]


def _last_words(category: str) -> set[str]:
    return {_stem(word) for word in re.findall(r"[^\W_]+", category.rsplit(".", 1)[-1])}


def _stem(word: str) -> str:
    """shoes → shoe; enough for the plural in which shops name categories."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
