"""Log lines can be read by a machine: logfmt, and who says it when."""

import logging
import re
import subprocess
import sys

import pytest

from intent_platform.log import get_logger


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (5, "5"),
        ("clean/day", "clean/day"),
        ("could not connect", '"could not connect"'),
        ('the table "x"', r'"the table \"x\""'),
        ("a\nb", r'"a\nb"'),
        ("day=1", '"day=1"'),
        ("", '""'),
        ("Müller", "Müller"),
    ],
)
def test_a_value_is_quoted_where_its_end_could_not_be_told(caplog, value, shown):
    get_logger("intent_platform.test").warning("something_failed", error=value, rows=1)
    assert caplog.messages == [f"action=something_failed error={shown} rows=1"]


def test_a_line_says_when_how_grave_and_which_process():
    told = "from intent_platform import log; log.log_to_stderr(20); log.get_logger('x').info('day_published', rows=5)"
    with subprocess.Popen([sys.executable, "-c", told], stderr=subprocess.PIPE, text=True) as process:
        line = process.communicate()[1]
    time = r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(rf"{time} level=INFO pid={process.pid} action=day_published rows=5\n", line)


def test_where_logging_is_configured_already_it_stays():
    from intent_platform.log import log_to_stderr

    before = list(logging.getLogger().handlers)
    log_to_stderr(logging.INFO)
    assert before
    assert logging.getLogger().handlers == before
