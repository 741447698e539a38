"""What people write on the command line, and what they read."""

import pytest

from skep.cli.failures import Failure
from skep.cli.rollouts import as_it_should_be
from skep.cli.spans import lasting
from skep.cli.values import inputs, json_value, rate_of, rate_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0ms"),
        (0.03, "30ms"),
        (0.9996, "1.0s"),
        (12.34, "12.3s"),
        (185, "3m05s"),
        (7_800, "2h10m"),
        (97_200, "1d03h"),
    ],
)
def test_spans_are_short(seconds: float | None, text: str) -> None:
    assert lasting(seconds) == text


@pytest.mark.parametrize(("text", "rate"), [("10/s", 10), ("5/m", 5 / 60), ("100/h", 100 / 3600), ("2", 2)])
def test_rates_are_read_and_written(text: str, rate: float) -> None:
    assert rate_of(text) == pytest.approx(rate)
    assert rate_of(rate_text(rate)) == pytest.approx(rate, rel=0.01)


@pytest.mark.parametrize("text", ["fast", "10/y", "-1/s", ""])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(Failure):
        rate_of(text)


def test_inputs_are_texts_where_the_flow_takes_texts() -> None:
    types = {"version": "str", "size": "int | None", "hosts": "list[HostName]", "host": "HostName"}

    values = inputs(["version=1.0", "size=3", 'hosts=["a"]', "host=7up", '{"more": {"a": 1}}'], types)

    assert values == {"version": "1.0", "size": 3, "hosts": ["a"], "host": "7up", "more": {"a": 1}}


@pytest.mark.parametrize("text", ["size", "=3", "{size: 3}"])
def test_what_is_no_input_is_refused(text: str) -> None:
    with pytest.raises(Failure):
        inputs([text], {})


def test_a_signal_carries_json() -> None:
    assert json_value('{"amount": 12}') == {"amount": 12}
    with pytest.raises(Failure, match="is no JSON"):
        json_value("paid")


def test_an_app_is_not_said_to_be_as_a_revision_says_before_there_is_one() -> None:
    assert as_it_should_be(3) == "Everything is as revision 3 says."
    assert as_it_should_be(0) == "No release is in force yet."
