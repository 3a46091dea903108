"""Structured log lines: one `action`, then its facts as key=value (logfmt). Never a raw user id."""

import json
import logging
import time


class _ActionLogger(logging.LoggerAdapter):
    """`log.info("day_published", day=day, rows=5)` becomes `action=day_published day=2026-08-21 rows=5`."""

    def process(self, msg, kwargs):
        facts = {key: kwargs.pop(key) for key in list(kwargs) if key not in ("exc_info", "stack_info", "stacklevel")}
        extra = {"action": msg, **facts}
        line = " ".join(f"{key}={_quoted(value)}" for key, value in extra.items())
        return line, {**kwargs, "extra": {"intent": extra}}


def _quoted(value: object) -> str:
    """As it is, or in double quotes where a reader could not tell where it ends."""
    text = str(value)
    is_plain = text.isprintable() and not set(text) & set(' "=')
    return text if text and is_plain else json.dumps(text, ensure_ascii=False)


def get_logger(name: str) -> _ActionLogger:
    return _ActionLogger(logging.getLogger(name), {})


def log_to_stderr(level: int) -> None:
    """What a process tells, whole lines; where somebody configured logging before, as in Airflow, that stays."""
    handler = logging.StreamHandler()
    form = "time=%(asctime)s.%(msecs)03dZ level=%(levelname)s pid=%(process)d %(message)s"
    handler.setFormatter(formatter := logging.Formatter(form, "%Y-%m-%dT%H:%M:%S"))
    formatter.converter = time.gmtime
    logging.basicConfig(level=level, handlers=[handler])
