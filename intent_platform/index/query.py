"""What a search says beside its words: a price range, and categories that it names."""

import re
from dataclasses import dataclass

from intent_platform.model.text import text_key

MOST_LETTERS = 1_000
"""A longer query is cut: nobody types more, and it would only be counted."""

_NUMBER = r"(\d{1,3}(?:,\d{3})+(?:\.\d{1,2})?|\d+(?:[.,]\d{1,2})?)(?![.,]?\d)"
_SIGNS = {"$": "USD", "€": "EUR", "£": "GBP", "¥": None, "元": "CNY", "块": "CNY"}
_CODES = {
    "usd": "USD", "dollar": "USD", "dollars": "USD", "eur": "EUR", "euro": "EUR", "euros": "EUR", "gbp": "GBP",
    "pound": "GBP", "pounds": "GBP", "cny": "CNY", "rmb": "CNY",
}  # fmt: skip
_SIGN, _CODE = r"[$€£¥]", rf"(?:{'|'.join(_CODES)})\b"
_UNITS = (
    r"\"|%|inch|in\b|cm|mm|m\b|ft|feet|gb|tb|mb|oz|lbs?\b|kg|g\b|ml|l\b|w\b|watts?|v\b|volts?|mah|m?hz|ghz|mp\b|hours?|days?|"
    r"pages?|years?|months?|packs?|pieces?|pcs|people|persons?|stars?|英寸|寸|厘米|毫米|米|毫安|公斤|千克|克|升|毫升|瓦|小时|"
    r"天|年|岁|个|件|片|页"
)
_UNIT = rf"(?!\s*(?:{_UNITS}))"  # what follows a number that is no price
_MONEY = rf"(?:{_SIGN}|{_CODE})?\s*{_NUMBER}{_UNIT}(?:\s*(?:{_SIGN}|{_CODE}|元|块))?(?!\w)"
_SURE = rf"(?:{_SIGN}\s*{_NUMBER}|{_NUMBER}\s*(?:{_SIGN}|{_CODE}))"  # with its currency
_HAN = rf"{_NUMBER}{_UNIT}\s*[元块]?\s*"

_BETWEEN = re.compile(
    rf"\bbetween\s+{_MONEY}\s*(?:and|to|[-–])\s*{_MONEY}|\bfrom\s+{_MONEY}\s*(?:to|[-–])\s*{_SURE}|"
    rf"{_NUMBER}\s*[元块]?\s*(?:到|至|~|-)\s*{_NUMBER}\s*[元块]"
)
_BELOW = re.compile(
    rf"(?:\b(?:under|below|less than|cheaper than|up to|at most)\s|<=?)\s*{_MONEY}|"
    rf"(?:低于|不到|少于|小于)\s*{_HAN}|{_HAN}(?:以下|以内|之内)"
)
_ABOVE = re.compile(rf"(?:\b(?:over|above|more than|at least)\s|>=?)\s*{_MONEY}|(?:高于|超过|大于)\s*{_HAN}|{_HAN}以上")


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """A search, understood."""

    text: str  # without the words about the price; as text_key; empty where there is no letter and no digit
    price_low: float | None = None
    price_high: float | None = None
    currency: str | None = None  # of the price, where it says one
    is_cut: bool = False  # it had more than MOST_LETTERS

    @property
    def has_price(self) -> bool:
        return self.price_low is not None or self.price_high is not None


def understand(raw: str) -> Query:
    """ "wireless mouse under 30" → "wireless mouse", at most 30. A number without such a word stays a word."""
    text = text_key(raw[:MOST_LETTERS].encode("utf-8", "ignore").decode())  # half a surrogate pair is no letter
    low = high = currency = None
    for pattern in (_BETWEEN, _BELOW, _ABOVE):
        found = pattern.search(text)
        if found is None:
            continue
        numbers = sorted(_number(each) for each in found.groups() if each is not None)
        low = low if pattern is _BELOW else numbers[0]
        high = high if pattern is _ABOVE else numbers[-1]
        currency = _currency(found.group()) or currency
        text = text_key(text[: found.start()] + " " + text[found.end() :])
    if low is not None and high is not None and low > high:
        low = None  # nothing costs that: the upper bound is meant, for "under" is what people type
    return Query(
        text=text if re.search(r"[^\W_]", text) else "",
        price_low=low,
        price_high=high,
        currency=currency,
        is_cut=len(raw) > MOST_LETTERS,
    )


def _currency(phrase: str) -> str | None:
    said = [_SIGNS[each] for each in phrase if each in _SIGNS]
    said += [_CODES[word] for word in re.findall(r"[a-z]+", phrase) if word in _CODES]
    return next((each for each in said if each), None)


def _number(text: str) -> float:
    """1,000 is a thousand, 1,50 one and a half."""
    return float(text.replace(",", "") if re.search(r",\d{3}", text) else text.replace(",", "."))


def named_categories(text: str, names: list[str]) -> list[int]:
    """Numbers of the categories the last part of whose path the text says, whole."""
    said = {_stem(word) for word in re.findall(r"\w+", text)}
    return [number for number, name in enumerate(names) if _is_named(name.rsplit(".", 1)[-1].lower(), text, said)]


def _is_named(part: str, text: str, said: set[str]) -> bool:
    if not part.isascii():  # Chinese has no spaces to find its words by
        return part in text
    words = {_stem(word) for word in re.findall(r"[^\W_]+", part)}
    return bool(words) and words <= said


def _stem(word: str) -> str:
    """shoes → shoe, batteries → battery: enough for the plurals in which shops name categories."""
    if word == "mice":
        return "mouse"
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
