"""Structured log lines: one `action`, then its facts as key=value. Never a raw user id."""

import logging


class _ActionLogger(logging.LoggerAdapter):
    """`log.info("day_published", day=day, rows=5)` becomes `action=day_published day=2026-08-21 rows=5`."""

    def process(self, msg, kwargs):
        facts = {key: kwargs.pop(key) for key in list(kwargs) if key not in ("exc_info", "stack_info", "stacklevel")}
        extra = {"action": msg, **facts}
        line = " ".join([f"action={msg}", *(f"{key}={value}" for key, value in facts.items())])
        return line, {**kwargs, "extra": {"intent": extra}}


def get_logger(name: str) -> _ActionLogger:
    return _ActionLogger(logging.getLogger(name), {})
