"""The little of Argo's expression language that retries use."""

from __future__ import annotations

import pytest

from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.runner.expression import Expression

VALUES = {"lastRetry.exitCode": "75", "lastRetry.status": "Failed"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("asInt(lastRetry.exitCode) in [75, 137]", True),
        ("asInt(lastRetry.exitCode) in [1, 2]", False),
        ("asInt(lastRetry.exitCode) not in [1, 2]", True),
        ('lastRetry.status == "Error" || asInt(lastRetry.exitCode) == 75', True),
        ("lastRetry.status == 'Failed' && asInt(lastRetry.exitCode) > 75", False),
        ('!(lastRetry.status != "Failed")', True),
        ('lastRetry.status == "a || b && !c"', False),
        ("true && !false", True),
        ('lastRetry.status == "Failed" || lastRetry.unknown == "never looked at"', True),
    ],
)
def test_a_condition_means_what_it_means_to_argo(text, expected):
    assert Expression(text, "test")(VALUES) is expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "asInt(",
        "lastRetry.exitCode ? 1 : 2",
        "__import__('os').system('true')",
        "asFloat(lastRetry.exitCode) > 1",
        "asInt(x=1)",
        "[n for n in [1]]",
        "lastRetry.status.lower() == 'x'",
        "1 < asInt(lastRetry.exitCode) < 99",
        "lambda: 1",
        "exitCode == '75'",
    ],
)
def test_what_is_not_understood_is_refused_before_it_is_needed(text):
    with pytest.raises(ConfigurationError, match="the place"):
        Expression(text, "the place")


def test_a_name_without_a_value_is_refused():
    with pytest.raises(ConfigurationError, match=r"lastRetry\.duration"):
        Expression('lastRetry.duration == "1"', "test")(VALUES)
