"""How a release comes into force, as a Compose file says it."""

from collections.abc import Callable

import pytest
from tests.compose.conftest import Load

from skep.compose import ComposeError
from skep.compose.release import to_app_spec
from skep.model.spec import ReleasePolicy, ServiceSpec, UpdateConfig

Web = Callable[..., ServiceSpec]
Refused = Callable[..., str]


def test_updates_and_rollbacks_have_their_own_settings(web: Web) -> None:
    found = web(
        "deploy:\n"
        "  update_config: {parallelism: 2, delay: 5s, order: start-first, monitor: 10s,"
        " max_failure_ratio: 0.2, failure_action: pause}\n"
        "  rollback_config: {parallelism: 0, failure_action: continue}\n"
        "  endpoint_mode: dnsrr"
    )

    assert found.update == UpdateConfig(
        parallelism=2,
        delay=5,
        order="start-first",
        monitor=10,
        max_failure_ratio=0.2,
        failure_action="pause",
    )
    assert found.rollback == UpdateConfig(parallelism=0, failure_action="continue")
    assert found.endpoint_mode == "dnsrr"


def test_without_a_word_of_it_a_service_is_updated_as_the_defaults_have_it(web: Web) -> None:
    found = web("deploy: {update_config: {}}")

    assert (found.update, found.rollback, found.endpoint_mode) == (UpdateConfig(), UpdateConfig(), "vip")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("deploy: {update_config: {order: start_first}}", "one of start-first, stop-first"),
        ("deploy: {update_config: {failure_action: explode}}", "must be continue, rollback or pause"),
        ("deploy: {update_config: {parallelism: -1}}", "from 0 to"),
        ("deploy: {update_config: {max_failure_ratio: 2}}", "from 0 to 1"),
        ("deploy: {rollback_config: {delay: soon}}", "no duration"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(refused: Refused, body: str, words: str) -> None:
    message = refused(body)

    assert "compose.yaml:3" in message or "compose.yaml:4" in message
    assert words in message


def test_the_policy_of_the_app_is_at_the_top(load: Load) -> None:
    project = load(
        "services: {web: {image: x}}\n"
        "x-skep:\n"
        "  release: {strategy: canary, steps: [5, 50], interval: 30s, drain: 5s, deadline: 10m,"
        " max_error_rate: 0.02, max_latency: 2, unchecked: true}"
    )

    assert to_app_spec(project, {}).x_skep.release == ReleasePolicy(
        strategy="canary",
        steps=(5, 50),
        interval=30,
        drain=5,
        deadline=600,
        max_error_rate=0.02,
        max_latency=2,
        unchecked=True,
    )


def test_the_zones_of_the_app_are_at_the_top_too(load: Load) -> None:
    project = load("services: {web: {image: x}}\nx-skep: {zones: [k8s]}")

    assert to_app_spec(project, {}).x_skep.zones == ("k8s",)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("{relase: {}}", "did you mean release?"),
        ("{release: {strategie: atomic}}", "did you mean strategy?"),
        ("{release: {strategy: atomik}}", "did you mean atomic?"),
        ("{release: {steps: 5}}", "list of percentages"),
        ("{release: {steps: [50, 5]}}", "more than the one before"),
        ("{release: {steps: [100]}}", "from 1 to 99"),
        ("{release: now}", "must be a mapping"),
    ],
)
def test_a_wrong_policy_is_named_with_its_line(load: Load, policy: str, words: str) -> None:
    with pytest.raises(ComposeError) as caught:
        load(f"services: {{web: {{image: x}}}}\nx-skep: {policy}")

    assert "compose.yaml:2" in caught.value.message
    assert words in caught.value.message
