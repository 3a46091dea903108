"""Index today's items with the model that serves, so that new items can be found and recommended.

**When**: after a catalogue that differs from the one before (`catalogue`); by form at any time, with another catalogue
file if wanted.

**What it does**: item vectors → FAISS index → recall measured against exact search → a release of the same model with
the new index → promotion. An index below the floors of the policy file (`[index]` of
`INTENT_POLICY`) is refused and the one before stays.

**What it gives**: the asset `item_index`, keyed by the newest clean day, when the index is another one;
`refresh_profiles` follows. Skipped while no release serves: the first refresh makes one, with today's items.

The same by hand: `intent catalogue --path FILE`, then `intent index`.
"""

from datetime import timedelta

from airflow.sdk import Param, PartitionedAssetTimetable, dag, task
from airflow.sdk.exceptions import AirflowSkipException
from intent_assets import CATALOGUE, ITEM_INDEX
from intent_days import newest_clean_day
from intent_retries import RETRY_WHAT_MAY_PASS


@dag(
    schedule=PartitionedAssetTimetable(assets=CATALOGUE),
    max_active_runs=1,
    description="Items → vectors → FAISS index → recall gate → release",
    doc_md=__doc__,
    tags=["intent", "index"],
    default_args={
        "owner": "intent-platform",
        "retries": 2,
        "retry_delay": timedelta(minutes=5),
        "retry_policy": RETRY_WHAT_MAY_PASS,
        "execution_timeout": timedelta(hours=4),
    },
    params={
        "source": Param(
            None,
            type=["null", "string"],
            title="Source",
            description="Mapping of the catalogue file: sources/NAME.toml. Empty: INTENT_CATALOGUE_SOURCE.",
        ),
        "path": Param(
            None,
            type=["null", "string"],
            title="Catalogue file",
            description="Load this file first: a local path or s3://… address. Empty: index the items known now.",
        ),
    },
)
def rebuild_item_index():
    @task(outlets=[ITEM_INDEX])
    def rebuild(*, params, outlet_events) -> None:
        from intent_platform import daily, training  # torch and faiss stay out of DAG parsing
        from intent_platform.settings import Settings

        settings = Settings.from_env()
        if params["path"]:
            daily.load_catalogue(settings, source=params["source"], path=params["path"])
        if training.current_promotion(settings) is None:
            raise AirflowSkipException("No release serves yet; the first refresh makes one with the items known now.")
        if not training.rebuild_index(settings).is_new:
            raise AirflowSkipException("The same items gave the same index, which serves already.")
        outlet_events[ITEM_INDEX].add_partitions(newest_clean_day())

    rebuild()


rebuild_item_index()
