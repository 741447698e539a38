"""How what a cluster says, or does not say, is told."""

import httpx2
import pytest

from skep.providers.kubernetes.client.refusals import translated


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (httpx2.ConnectError("All connection attempts failed"), "All connection attempts failed"),
        (httpx2.ConnectTimeout(""), "ConnectTimeout"),
    ],
)
def test_who_asked_in_vain_reads_why_even_if_the_error_has_no_words(error: Exception, said: str) -> None:
    told = str(translated(error, "get /version"))

    assert told == f"The cluster does not answer (get /version): {said}"
