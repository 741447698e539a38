"""Three tenants of one host: ours, one with other addresses, and one with the very same range."""

import msgspec
from tests.attack.prison import HOST, METADATA, OTHER_HOST, WORLD, Prison, Prisoner

from skep.model.host import NetworkConfig, PortConfig, Publication, ServicePublications
from skep.model.ids import ServiceId, new_id

AGENT = 7537
PUBLISHED = 8080
SHOWN = 8443


class Tenants(msgspec.Struct, frozen=True):
    """`prisoner` is the attacker, `victim` another replica of its own network."""

    ours: NetworkConfig
    theirs: NetworkConfig
    same: NetworkConfig
    port: PortConfig
    victim: PortConfig
    third: PortConfig
    stranger: PortConfig
    double: PortConfig
    prisoner: Prisoner


def settle(prison: Prison) -> Tenants:
    """The tenants, with something to find at every place that is none of the prisoner's business."""
    ours, theirs, same = (
        prison.network(number, subnet)
        for number, subnet in ((1, "10.1.0.0/24"), (2, "10.2.0.0/24"), (3, "10.1.0.0/24"))
    )
    port = prison.plug(ours, 5, "web")
    made = Tenants(
        ours=ours,
        theirs=theirs,
        same=same,
        port=port,
        victim=prison.plug(ours, 6, "db"),
        third=prison.plug(ours, 7, "cache"),
        stranger=prison.plug(theirs, 6, "bank", app="bank"),
        double=prison.plug(same, 77, "bank", app="bank"),
        prisoner=prison.admit_to(port),
    )
    for stranger, name in ((made.stranger, "stranger"), (made.double, "double")):
        prison.serve(prison.sandbox(stranger), "0.0.0.0", 80, name)
    prison.serve(prison.host, "0.0.0.0", AGENT, "agent")
    prison.serve(prison.underlay, OTHER_HOST, AGENT, "agent of another host")
    prison.serve(prison.underlay, WORLD, 80, "world")
    prison.serve(prison.underlay, METADATA, 80, "credentials of the machine")
    _publish(prison, made)
    return made


def _publish(prison: Prison, tenants: Tenants) -> None:
    """The stranger shows one port to the world, and one to the host's own loopback only."""
    items = [
        Publication(
            host_ip=address,
            published=number,
            protocol="tcp",
            network=tenants.theirs.id,
            target=80,
            addresses=(tenants.stranger.address,),
        )
        for address, number in ((HOST, PUBLISHED), ("127.0.0.1", SHOWN))
    ]
    wanted = ServicePublications(service=ServiceId(new_id()), publications=tuple(items))
    prison.wait(prison.fabric.publish(wanted))
