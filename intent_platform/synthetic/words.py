"""The words from which titles and queries of the invented shop are made. All brand names are invented.

A pair is always (English, Chinese).
"""

from __future__ import annotations

from dataclasses import dataclass

Pair = tuple[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaf:
    """One leaf category: its path, what its items are called, and their price range in the shop's currency."""

    path: str
    noun: Pair
    cheapest: float
    dearest: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Department:
    """Leaves that share brands, adjectives and features; demand is highest in peak_month (1 to 12)."""

    peak_month: int
    brands: tuple[str, ...]
    adjectives: tuple[Pair, ...]
    features: tuple[Pair, ...]
    leaves: tuple[Leaf, ...]


def _leaf(path: str, english: str, chinese: str, cheapest: float, dearest: float) -> Leaf:
    return Leaf(path=path, noun=(english, chinese), cheapest=cheapest, dearest=dearest)


SPORTS = Department(
    peak_month=7,
    brands=("Norvik", "Strideon", "风驰", "Pacer & Holt", "云步", "Tarnfell"),
    adjectives=(
        ("lightweight", "轻便透气"), ("new", "新款"), ("cushioned", "缓震"), ("waterproof", "防水"),
        ("breathable", "透气"), ("professional", "专业"), ("durable", "耐磨"), ("classic", "经典"),
    ),
    features=(
        ("for men", "男款"), ("for women", "女款"), ("for kids", "儿童款"), ("for beginners", "入门款"),
        ("wide fit", "宽版"), ("summer", "夏季"),
    ),
    leaves=(
        _leaf("sports.shoes.trainers", "sports shoes", "运动鞋", 35, 160),
        _leaf("sports.shoes.running", "running shoes", "跑步鞋", 45, 190),
        _leaf("sports.shoes.hiking", "hiking boots", "登山鞋", 60, 240),
        _leaf("sports.shoes.basketball", "basketball shoes", "篮球鞋", 55, 210),
        _leaf("sports.fitness.mats", "yoga mat", "瑜伽垫", 12, 70),
        _leaf("sports.fitness.dumbbells", "dumbbells", "哑铃", 15, 150),
        _leaf("sports.outdoor.tents", "camping tent", "帐篷", 60, 420),
        _leaf("sports.outdoor.backpacks", "hiking backpack", "登山包", 30, 200),
    ),
)  # fmt: skip

ELECTRONICS = Department(
    peak_month=11,
    brands=("Auralis", "Kestrel", "星澜", "Voltane", "极光", "Lumo, Hahn"),
    adjectives=(
        ("wireless", "无线"), ("noise cancelling", "降噪"), ("compact", "便携"), ("gaming", "电竞"),
        ("new", "新款"), ("fast charging", "快充"), ("silent", "静音"), ("smart", "智能"),
    ),
    features=(
        ("with case", "带收纳盒"), ("black", "黑色"), ("white", "白色"), ("for office", "办公用"),
        ("for travel", "旅行用"), ("long battery life", "长续航"),
    ),
    leaves=(
        _leaf("electronics.audio.headphones", "headphones", "耳机", 20, 380),
        _leaf("electronics.audio.speakers", "bluetooth speaker", "蓝牙音箱", 20, 260),
        _leaf("electronics.computers.mice", "mouse", "鼠标", 10, 110),
        _leaf("electronics.computers.keyboards", "keyboard", "键盘", 20, 210),
        _leaf("electronics.computers.monitors", "monitor", "显示器", 110, 780),
        _leaf("electronics.phones.chargers", "charger", "充电器", 9, 80),
        _leaf("electronics.phones.power_banks", "power bank", "充电宝", 15, 110),
        _leaf("electronics.wearables.watches", "smart watch", "智能手表", 50, 450),
    ),
)  # fmt: skip

FASHION = Department(
    peak_month=9,
    brands=("Linnea", "Corvo", "素影", "Hartwell", "木棉", "Bellamy Row"),
    adjectives=(
        ("slim", "修身"), ("loose", "宽松"), ("warm", "保暖"), ("vintage", "复古"),
        ("new", "新款"), ("soft", "柔软"), ("striped", "条纹"), ("elegant", "优雅"),
    ),
    features=(
        ("for men", "男款"), ("for women", "女款"), ("cotton", "纯棉"), ("black", "黑色"),
        ("plus size", "大码"), ("autumn", "秋季"),
    ),
    leaves=(
        _leaf("fashion.tops.shirts", "shirt", "衬衫", 15, 120),
        _leaf("fashion.tops.hoodies", "hoodie", "卫衣", 20, 130),
        _leaf("fashion.outerwear.coats", "coat", "大衣", 60, 420),
        _leaf("fashion.outerwear.down_jackets", "down jacket", "羽绒服", 70, 480),
        _leaf("fashion.bottoms.jeans", "jeans", "牛仔裤", 25, 150),
        _leaf("fashion.dresses", "dress", "连衣裙", 25, 220),
        _leaf("fashion.bags.handbags", "handbag", "手提包", 30, 390),
    ),
)  # fmt: skip

HOME = Department(
    peak_month=3,
    brands=("Fjordhem", "Casa Brisa", "暖居", "Oakmoor", "青禾", "Tindra"),
    adjectives=(
        ("modern", "现代"), ("foldable", "折叠"), ("solid wood", "实木"), ("adjustable", "可调节"),
        ("new", "新款"), ("washable", "可水洗"), ("simple", "简约"), ("energy saving", "节能"),
    ),
    features=(
        ("for bedroom", "卧室用"), ("for living room", "客厅用"), ("small", "小号"), ("large", "大号"),
        ("set of two", "两件套"), ("grey", "灰色"),
    ),
    leaves=(
        _leaf("home.furniture.desks", "desk", "书桌", 60, 520),
        _leaf("home.furniture.chairs", "office chair", "办公椅", 45, 480),
        _leaf("home.lighting.lamps", "desk lamp", "台灯", 14, 130),
        _leaf("home.bedding.duvets", "duvet", "羽绒被", 40, 310),
        _leaf("home.kitchen.pans", "frying pan", "平底锅", 15, 140),
        _leaf("home.kitchen.kettles", "electric kettle", "电热水壶", 18, 120),
        _leaf("home.cleaning.vacuums", "vacuum cleaner", "吸尘器", 50, 560),
    ),
)  # fmt: skip

BEAUTY = Department(
    peak_month=5,
    brands=("Solenne", "Mirabel", "雪颜", "Verdine", "花语", "Aster Lab"),
    adjectives=(
        ("moisturising", "保湿"), ("gentle", "温和"), ("organic", "有机"), ("refreshing", "清爽"),
        ("new", "新款"), ("repairing", "修护"), ("long lasting", "持久"), ("fragrance free", "无香"),
    ),
    features=(
        ("for dry skin", "干性肌肤"), ("for sensitive skin", "敏感肌"), ("travel size", "旅行装"),
        ("gift box", "礼盒装"), ("for men", "男士"), ("refill", "补充装"),
    ),
    leaves=(
        _leaf("beauty.skin.creams", "face cream", "面霜", 8, 120),
        _leaf("beauty.skin.sunscreen", "sunscreen", "防晒霜", 8, 60),
        _leaf("beauty.makeup.lipsticks", "lipstick", "口红", 7, 55),
        _leaf("beauty.hair.shampoo", "shampoo", "洗发水", 5, 45),
        _leaf("beauty.fragrance", "perfume", "香水", 25, 230),
        _leaf("beauty.tools.hair_dryers", "hair dryer", "吹风机", 20, 320),
    ),
)  # fmt: skip

BABY_AND_TOYS = Department(
    peak_month=12,
    brands=("Pippin", "Tumbleby", "小象家", "Brickolo", "童乐", "Mosskin"),
    adjectives=(
        ("wooden", "木制"), ("educational", "益智"), ("soft", "柔软"), ("safe", "安全"),
        ("new", "新款"), ("portable", "便携"), ("musical", "音乐"), ("colourful", "彩色"),
    ),
    features=(
        ("for toddlers", "幼儿"), ("from 3 years", "3岁以上"), ("from 6 years", "6岁以上"), ("100 pieces", "100片装"),
        ("gift box", "礼盒装"), ("two pack", "两件装"),
    ),
    leaves=(
        _leaf("baby_and_toys.toys.blocks", "building blocks", "积木", 10, 140),
        _leaf("baby_and_toys.toys.puzzles", "puzzle", "拼图", 6, 50),
        _leaf("baby_and_toys.toys.dolls", "doll", "娃娃", 10, 90),
        _leaf("baby_and_toys.baby.prams", "pram", "婴儿车", 90, 720),
        _leaf("baby_and_toys.baby.bottles", "baby bottle", "奶瓶", 6, 40),
        _leaf("baby_and_toys.school.pencils", "colour pencils", "彩色铅笔", 5, 45),
    ),
)  # fmt: skip

DEPARTMENTS = (SPORTS, ELECTRONICS, FASHION, HOME, BEAUTY, BABY_AND_TOYS)

# A searcher's state of mind shows in a word added to the query; the index is the modifier's number in the law.
MODIFIER_WORDS: tuple[tuple[Pair, ...], ...] = (
    (),
    (("cheap", "便宜"), ("on sale", "特价")),
    (("buy", "购买"), ("in stock", "现货")),
)

DESCRIPTIONS: tuple[Pair, ...] = (
    ("{adjective} {noun} by {brand}, {feature}.", "{brand}{adjective}{noun}，{feature}。"),
    (
        "A {adjective} {noun} from {brand}; {feature}, made to last.",
        "来自{brand}的{noun}，{adjective}，{feature}，经久耐用。",
    ),
    ('{brand} calls it "{model}": {adjective}, {feature}.', "{brand}“{model}”系列{noun}，{adjective}设计，{feature}。"),
)
