"""What the DAGs hand to each other. Each event of an asset carries a day (YYYY-MM-DD) as its partition key."""

from airflow.sdk import Asset

CLEAN_EVENTS = Asset(name="clean_events", uri="intent://clean_events", group="intent")
"""A day of validated events is published in the lake. Key: that day."""

CATALOGUE = Asset(name="catalogue", uri="intent://catalogue", group="intent")
"""A catalogue that differs from the one before is in the lake. Key: the day whose run found it."""

INTENT_MODEL = Asset(name="intent_model", uri="intent://intent_model", group="intent")
"""Another model serves: newly trained, or an earlier one promoted again. Key: the newest clean day it knew."""

ITEM_INDEX = Asset(name="item_index", uri="intent://item_index", group="intent")
"""Another item index serves, with the same model. Key: the newest clean day at that time."""

USER_PROFILES = Asset(name="user_profiles", uri="intent://user_profiles", group="intent")
"""profiles.user_profile holds everybody's row as of the end of a day. Key: that day."""
