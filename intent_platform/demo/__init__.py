"""`intent demo`: the whole loop on a laptop, run by Airflow's own scheduler, then a story with real rows."""

from intent_platform.demo.drive import run_demo

__all__ = ["run_demo"]
