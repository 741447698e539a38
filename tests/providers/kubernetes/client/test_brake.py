"""What somebody undoes again and again is done more and more slowly."""

from skep.providers.kubernetes.client.patience import Brake


def test_it_is_done_at_once_then_more_and_more_slowly_and_at_once_again_after_a_while() -> None:
    brake = Brake()

    pauses = [brake.pause(now) for now in (0.0, 1.0, 2.0, 3.0)]
    for now in range(4, 20):
        longest = brake.pause(float(now))
    later = brake.pause(100.0)

    assert pauses == [0.0, 0.2, 0.4, 0.8]
    assert (longest, later) == (30.0, 0.0)
