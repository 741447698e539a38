"""`x-skep.scale`: read, or refused with its line."""

import pytest
from tests.compose.conftest import Load

from skep.compose import ComposeError
from skep.model.names import ServiceName
from skep.model.spec import Autoscale

FILE = """\
services:
  web:
    image: busybox:1
    x-skep:
      scale: {entry}
"""


def test_bounds_targets_and_cooldowns_are_read(load: Load) -> None:
    entry = "{min: 2, max: 8, cpu: 60, requests: 12.5, latency: 250ms, down_cooldown: 10m}"

    found = load(FILE.replace("{entry}", entry)).services[ServiceName("web")].spec.x_skep.scale

    assert found == Autoscale(min=2, max=8, cpu=60, requests=12.5, latency=0.25, down_cooldown=600.0)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{mim: 2}", "did you mean min?"),
        ("{min: 9, max: 3}", "min (9) is more than max (3)"),
        ("{cpu: half}", "cpu"),
        ("{min: -1}", "min"),
        ("3", "must be a mapping"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(load: Load, entry: str, says: str) -> None:
    with pytest.raises(ComposeError) as refused:
        load(FILE.replace("{entry}", entry))

    assert says in str(refused.value)
    assert "compose.yaml:5" in str(refused.value)
