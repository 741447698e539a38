"""How a release comes into force, as flow documents: one module per strategy (docs/decisions/0020), and one
for a release that has another home (0026)."""

from skep.control.flows.rollouts.moving import move
from skep.control.flows.rollouts.release import apply

__all__ = ["apply", "move"]
