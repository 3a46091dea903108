"""Which failures are tried again: decided here, once, for every DAG.

A refused day or a mapping that does not fit would be met again, and the person who can mend it would hear of it only
after the last try. A database that is away, or a file whose upload has not ended, may be well by then.
"""

from typing import Any

from airflow.sdk import RetryDecision, RetryPolicy


class RetryWhatMayPass(RetryPolicy):
    """Fails a task at its first try for an error that says of itself that it is not transient; else Airflow's rules."""

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002 - Airflow's signature
        max_tries: int,  # noqa: ARG002
        context: Any = None,  # noqa: ARG002
    ) -> RetryDecision:
        from intent_platform.errors import IntentError

        if isinstance(exception, IntentError) and not exception.is_transient:
            return RetryDecision.fail(f"Another try would meet the same {type(exception).__name__}: see its message.")
        return RetryDecision.default()


RETRY_WHAT_MAY_PASS = RetryWhatMayPass()
