"""Which failures are worth another try."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from airflow.sdk.exceptions import AirflowFailException


def fail_at_once(step: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a task's function: what only a person can mend (a refused day, a wrong mapping) fails without retries.

    The message stays the error's own. What may pass by itself (a database that is away) is raised as it is and retried.
    """

    @wraps(step)
    def guarded(*arguments: Any, **named: Any) -> Any:
        from intent_platform.errors import IntentError

        try:
            return step(*arguments, **named)
        except IntentError as error:
            if error.is_transient:
                raise
            raise AirflowFailException(str(error)) from error

    return guarded
