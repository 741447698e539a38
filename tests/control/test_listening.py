"""At which ports services listen, as clusters must know it."""

import pytest
from tests.control.simulation import service

from skep.control.telling.listening import Listening, listening, together
from skep.model.images import ImageConfig
from skep.model.spec import EndpointSpec, Extensions, PublishedPort, ServiceSpec


@pytest.mark.parametrize(
    ("spec", "exposed", "known"),
    [
        (service(), (), ()),
        (service(expose=("8080", "53/udp")), (), ((53, "udp"), (8080, "tcp"))),
        (service(expose=("8000-8002/tcp",)), (), ((8000, "tcp"), (8001, "tcp"), (8002, "tcp"))),
        (service(), ("80/tcp", "443"), ((80, "tcp"), (443, "tcp"))),
        (service(ports=(PublishedPort(target=53, protocol="udp"),)), (), ((53, "udp"),)),
        (
            service(x_skep=Extensions(endpoints=(EndpointSpec(host="a.example", port=81),))),
            (),
            ((81, "tcp"),),
        ),
        (service(expose=("1000-2000",)), ("80",), ()),
        (service(expose=("web", "7/sctp", "80-x")), (), ()),
    ],
)
def test_it_listens_where_it_or_its_image_says(
    spec: ServiceSpec, exposed: tuple[str, ...], known: Listening
) -> None:
    assert listening(spec, ImageConfig(exposed_ports=exposed)) == known


def test_two_releases_at_the_same_time_listen_where_either_does() -> None:
    assert together([((80, "tcp"),), ((81, "tcp"), (80, "tcp"))]) == ((80, "tcp"), (81, "tcp"))
