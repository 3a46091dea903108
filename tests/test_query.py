"""What a search says beside its words."""

import pytest

from intent_platform.index.query import MOST_LETTERS, named_categories, understand


@pytest.mark.parametrize(
    ("raw", "text", "low", "high"),
    [
        ("wireless mouse under 30", "wireless mouse", None, 30.0),
        ("mouse below $29.99 black", "mouse black", None, 29.99),
        ("Desk up to 1,000 EUR", "desk", None, 1000.0),
        ("pen less than 1,50", "pen", None, 1.5),
        ("headphones over 50 and under 90", "headphones and", 50.0, 90.0),
        ("notebook between 10 and 20 eur", "notebook", 10.0, 20.0),
        ("notebook between 20 and 10", "notebook", 10.0, 20.0),
        ("a4 paper under £10", "a4 paper", None, 10.0),
        ("运动鞋 300元以下", "运动鞋", None, 300.0),
        ("100-200元 耳机", "耳机", 100.0, 200.0),
        ("不到100块 充电宝", "充电宝", None, 100.0),
        ("耳机 超过500元", "耳机", 500.0, None),
        ("mouse <30", "mouse", None, 30.0),
    ],
)
def test_words_about_the_price_become_a_range(raw, text, low, high):
    found = understand(raw)
    assert (found.text, found.price_low, found.price_high) == (text, low, high)


@pytest.mark.parametrize(
    "raw",
    [
        "power bank over 10000 mah", "monitor over 144 hz", "lamp at least 8 hours", "tent more than 2 people",
        "from 2020 to 2024 calendar", "paper from 8 to 11", "大于27英寸 显示器", "超过10000毫安 充电宝",
        "iphone 15", "canon mp280 ink 2 pack", "3-hole punch", "under", "monitor under 27 inch",
        "usb stick up to 64 gb", "over 100 pages", "3m 9-inch", "under the desk", "less than perfect", "",
    ],
)  # fmt: skip
def test_other_numbers_stay_words(raw):
    found = understand(raw)
    assert (found.text, found.has_price) == (raw, False)


@pytest.mark.parametrize("raw", ["", "   ", "😀😀", "?!", "\ud800", "under 30,", "(under 30)"])
def test_what_has_neither_letter_nor_digit_is_empty(raw):
    assert understand(raw).text == ""


def test_an_endless_query_is_cut_and_says_so():
    found = understand("x" * 10_000_000)
    assert (len(found.text), found.is_cut) == (MOST_LETTERS, True)


def test_a_category_is_named_by_the_last_part_of_its_path():
    names = ["electronics.audio.headphones", "sports.shoes.running", "electronics.phones.power_banks"]
    assert named_categories("black headphone", names) == [0]
    assert named_categories("running shoes", names) == [1]
    assert named_categories("power bank 20000", names) == [2]
    assert named_categories("bank", names) == []


@pytest.mark.parametrize(
    ("raw", "currency"),
    [("under $5", "USD"), ("under 5 euros", "EUR"), ("5块以下", "CNY"), ("under ¥5", None), ("under 5", None)],
)
def test_a_price_may_say_its_currency(raw, currency):
    assert understand(raw).currency == currency


def test_categories_are_named_in_any_case_number_and_script():
    assert named_categories("wireless mouse", ["electronics.computers.mice"]) == [0]
    assert named_categories("rechargeable battery", ["Household.Batteries"]) == [0]
    assert named_categories("降噪蓝牙耳机", ["数码.耳机", "数码.音箱"]) == [0]
