"""Intent Platform: what each shopper is about to buy, kept in Postgres. Read daily.py first."""

__version__ = "0.1.0"
