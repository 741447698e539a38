"""What the machine is."""

import os
import platform
from pathlib import Path

from skep.model.host import HostFacts
from skep.model.ids import Bytes
from skep.providers.local.cgroups import Cgroups


def read_facts(cgroups: Cgroups) -> HostFacts:
    return HostFacts(
        cpus=os.cpu_count() or 1,
        memory=Bytes(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        kernel=platform.release(),
        cgroups=cgroups.mode,
        boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
    )
