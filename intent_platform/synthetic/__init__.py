"""A shop that never was, with known truth: it feeds the demo, and gives tests a ceiling and a floor."""

from intent_platform.synthetic.dirt import Dirt
from intent_platform.synthetic.shop import ShopSummary, write_shop

__all__ = ["Dirt", "ShopSummary", "write_shop"]
