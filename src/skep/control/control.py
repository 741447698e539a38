"""All use cases in one place, for the entrances."""

from dataclasses import dataclass

from skep.control.apps import Apps
from skep.control.auth import Auth
from skep.control.bundles import Bundles
from skep.control.disks import Disks
from skep.control.events import Events
from skep.control.flow_documents import Flows
from skep.control.hosts import Hosts
from skep.control.images import Images
from skep.control.limits import FlowLimits
from skep.control.metrics import Metrics
from skep.control.networks import Networks
from skep.control.replicas import Replicas
from skep.control.runs import Runs
from skep.control.schedules import Schedules
from skep.control.tenants import Tenants
from skep.control.tokens import Tokens
from skep.control.users import Users


@dataclass(frozen=True)
class Control:
    auth: Auth
    apps: Apps
    replicas: Replicas
    images: Images
    runs: Runs
    flows: Flows
    bundles: Bundles
    schedules: Schedules
    limits: FlowLimits
    metrics: Metrics
    disks: Disks
    networks: Networks
    hosts: Hosts
    tenants: Tenants
    users: Users
    tokens: Tokens
    events: Events
