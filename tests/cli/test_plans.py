"""What a plan says of images that are built from here, which only the command line knows."""

import pytest

from skep.cli import plans
from skep.cli.failures import Failure
from skep.model.views.plans import Action, PlanChange, PlanDetail

HERE = PlanDetail(
    app="shop",
    mark="m",
    revision=1,
    changes=(
        PlanChange(
            action=Action.CREATE, kind="image", name="web:latest", reason="is not here: will be pulled"
        ),
        PlanChange(action=Action.CREATE, kind="image", name="redis:7", reason="is not here: will be pulled"),
        PlanChange(action=Action.CREATE, kind="service", name="web:latest"),
    ),
)


def test_images_that_are_built_from_here_are_not_said_to_be_pulled() -> None:
    found = plans.with_builds(HERE, {"web:latest"})

    assert [one.reason for one in found.changes] == [
        "is not here: will be built",
        "is not here: will be pulled",
        "",
    ]


def test_a_plan_is_written_only_when_its_images_are_built() -> None:
    with pytest.raises(Failure, match="web:latest must be built first") as refused:
        plans.must_be_built(HERE, {"web:latest", "api:latest"})

    plans.must_be_built(HERE, {"api:latest"})
    assert "skep build" in refused.value.hint
