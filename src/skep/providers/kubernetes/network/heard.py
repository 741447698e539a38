"""What is heard of pods, as far as names and policies depend on it."""

from lightkube.resources.core_v1 import Pod

from skep.model.ids import ReplicaId
from skep.providers.kubernetes.client.watching import Change
from skep.providers.kubernetes.network.standing import Bearing, Standing, bearing, replica, standing


class Heard:
    """`hidden` replicas have no names, whether their pods run or not."""

    def __init__(self) -> None:
        self.standings: dict[ReplicaId, Standing] = {}
        self.bearings: dict[ReplicaId, Bearing] = {}
        self.hidden: set[ReplicaId] = set()

    def hear(self, change: Change[Pod]) -> bool:
        """Whether names or policies are to change with it."""
        whose, earlier = replica(change.object), change.before and replica(change.before)
        lost = change.before is not None and earlier != whose and self.hear(Change(change.before, gone=True))
        if whose is None:
            return lost
        bears, stands = self._note_bearing(whose, change), self._note_standing(whose, change)
        return bears or stands or lost

    def show(self, one: ReplicaId, up: bool) -> Standing | None:
        """Give it names, or take them.  Answers the pod that they are to change for, if any."""
        if (one not in self.hidden) == up:
            return None
        (self.hidden.discard if up else self.hidden.add)(one)
        return self.standings.get(one)

    def _note_bearing(self, whose: ReplicaId, change: Change[Pod]) -> bool:
        """Whether a policy is to name it now that is not, or the other way round.

        A pod that bears nothing is followed by another such one, which is to be named before it runs.
        """
        before, now = self.bearings.get(whose), bearing(change.object)
        if change.gone and before == now and now.networks:
            del self.bearings[whose]
        if change.gone or (change.object.metadata and change.object.metadata.deletionTimestamp):
            return False  # there may be a younger one
        self.bearings[whose] = now
        return before.networks != now.networks if before else not now.networks

    def _note_standing(self, whose: ReplicaId, change: Change[Pod]) -> bool:
        """Of two pods of a replica the one that runs counts, or the younger of them."""
        now = None if change.gone else standing(change.object)
        before = self.standings.get(whose)
        name = change.object.metadata.name if change.object.metadata else None
        if now == before or (now is None and before is not None and before.pod != name):
            return False
        if now is None:
            self.standings.pop(whose, None)
        else:
            self.standings[whose] = now
        return True
