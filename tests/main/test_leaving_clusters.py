"""What an installation that is purged leaves in clusters: nothing, or word of it."""

from pathlib import Path

import pytest
from tests.control.installation import installation
from tests.control.test_cluster_zones import REGISTRY, House, KnownClusters

from skep.configuration import Configuration
from skep.main.leaving_clusters import leave_clusters
from skep.model.ids import ClusterId


async def zone_in(folder: Path) -> ClusterId:
    async with installation(folder) as inside:
        house = House(inside, folder)
        await house.zones.add(house.admin, "k8s", "one", REGISTRY)
        return (await house.row()).id


def settings(folder: Path, database: str = "") -> Configuration:
    return Configuration(data=folder, etc=folder, database=database)


async def test_what_is_in_clusters_goes_with_the_installation(tmp_path: Path) -> None:
    cluster, known = await zone_in(tmp_path), KnownClusters()

    await leave_clusters(settings(tmp_path), known)

    assert known.left == [cluster]


async def test_a_cluster_that_does_not_answer_is_named_with_what_takes_the_rest_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster, known = await zone_in(tmp_path), KnownClusters()
    known.answers = False

    await leave_clusters(settings(tmp_path), known)

    said = capsys.readouterr().err
    assert "Cluster https://one of zone k8s is left" in said
    assert f"kubectl delete namespaces,priorityclasses --selector skep.dev/installation={cluster}" in said


async def test_one_machine_of_several_leaves_no_clusters_nor_does_one_that_never_ran(tmp_path: Path) -> None:
    known = KnownClusters()

    await leave_clusters(settings(tmp_path / "never"), known)
    await zone_in(tmp_path)
    await leave_clusters(settings(tmp_path, "postgresql+asyncpg://elsewhere/skep"), known)

    assert known.left == []


async def test_a_database_that_cannot_be_read_keeps_nobody_from_purging(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "skep.db").write_bytes(b"no database" * 1000)

    await leave_clusters(settings(tmp_path), KnownClusters())

    assert "not known any more" in capsys.readouterr().err
