"""How a release comes into force, as flow documents: one module per strategy (docs/decisions/0020)."""

from skep.control.flows.rollouts.release import apply

__all__ = ["apply"]
