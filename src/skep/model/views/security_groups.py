"""Security groups."""

from skep.model.views.base import View


class GroupRuleView(View, frozen=True, kw_only=True):
    """Whom it admits: `cidr`, the members of `group`, or, with neither, anybody; `ports` empty: all."""

    id: str
    direction: str
    protocol: str
    ports: str
    cidr: str
    group: str


class SecurityGroupView(View, frozen=True, kw_only=True):
    """`services`: how many are in it."""

    id: str
    name: str
    description: str
    rules: tuple[GroupRuleView, ...]
    services: int
    created: str
    changed: str
    changed_by: str
