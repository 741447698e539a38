"""A certificate authority, as control's `Issuer` wants it.

The library waits while it talks, so it does so on a thread; and where it would poll and sleep, control comes
again.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import josepy.errors
import requests
import structlog
from acme import challenges, crypto_util, errors, messages
from acme.client import ClientNetwork, ClientV2
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from skep import __version__
from skep.model.acme import AcmeAccount, AcmeOrder, AcmeProblem, AcmeRefusal
from skep.model.errors import Unavailable

PATIENCE = 15
"""Seconds for one answer."""
_STATES = ("pending", "ready", "processing", "valid", "invalid")
_LONGEST = 400
"""Characters of what an authority says."""

log = structlog.get_logger("skep.acme")

T = TypeVar("T")


class AcmeIssuer:
    """`authorities`: file with the certificates that vouch for the directory; None: those of the system."""

    def __init__(self, directory: str, contact: str = "", authorities: Path | None = None) -> None:
        self._url = directory
        self._contact = contact
        self._authorities = authorities
        self._directory: messages.Directory | None = None

    @property
    def directory(self) -> str:
        return self._url

    async def register(self, key: str) -> str:
        def work(talk: "_Talk") -> str:
            contact = (f"mailto:{self._contact}",) if self._contact else ()
            new = messages.NewRegistration(contact=contact, terms_of_service_agreed=True)
            try:
                return str(talk.client.new_account(new).uri)
            except errors.ConflictError as known:
                return str(known.location)

        return await self._do(work, key)

    async def order(self, account: AcmeAccount, host: str) -> AcmeOrder:
        def work(talk: "_Talk") -> AcmeOrder:
            named = messages.Identifier(typ=messages.IDENTIFIER_FQDN, value=host)
            response = talk.post(talk.client.directory["newOrder"], messages.NewOrder(identifiers=[named]))
            return talk.order(response.headers["Location"], response)

        return await self._do(work, account.key, account.url)

    async def look(self, account: AcmeAccount, order: str) -> AcmeOrder:
        return await self._do(lambda talk: talk.order(order, talk.post(order)), account.key, account.url)

    async def prove(self, account: AcmeAccount, order: str) -> None:
        def work(talk: "_Talk") -> None:
            for challenge in talk.challenges(talk.body(talk.post(order))):
                if challenge.status == messages.STATUS_PENDING:
                    talk.client.answer_challenge(challenge, challenge.chall.response(talk.key))

        await self._do(work, account.key, account.url)

    async def finalize(self, account: AcmeAccount, order: str, host: str, key: str) -> None:
        def work(talk: "_Talk") -> None:
            request = crypto_util.make_csr(key.encode(), [host])
            body = talk.body(talk.post(order))
            talk.client.begin_finalization(messages.OrderResource(body=body, uri=order, csr_pem=request))

        await self._do(work, account.key, account.url)

    async def chain(self, account: AcmeAccount, order: str) -> str:
        def work(talk: "_Talk") -> str:
            return talk.post(talk.body(talk.post(order)).certificate).text

        return await self._do(work, account.key, account.url)

    async def _do(self, work: Callable[["_Talk"], T], key: str, account: str = "") -> T:
        return await asyncio.to_thread(self._work, work, key, account)

    def _work(self, work: Callable[["_Talk"], T], key: str, account: str) -> T:
        jwk = JWKEC(key=load_pem_private_key(key.encode(), None))
        known = messages.RegistrationResource(uri=account, body=messages.Registration()) if account else None
        net = ClientNetwork(
            jwk,
            known,
            alg=ES256,
            verify_ssl=cast(bool, str(self._authorities)) if self._authorities else True,
            user_agent=f"skep/{__version__}",
            timeout=PATIENCE,
        )
        answers: list[requests.Response] = []
        net.session.hooks["response"].append(lambda response, **_: answers.append(response))
        with net.session, self._translated(answers):
            self._directory = self._directory or ClientV2.get_directory(self._url, net)
            return work(_Talk(ClientV2(self._directory, net), jwk))

    @contextmanager
    def _translated(self, answers: list[requests.Response]) -> Iterator[None]:
        """Raises AcmeRefusal: it says no.  Unavailable: it says nothing that can be understood."""
        try:
            yield
        except messages.Error as error:
            raise AcmeRefusal(_problem(error), _wait(answers[-1]) if answers else 0.0) from error
        except (
            errors.Error,
            requests.RequestException,
            josepy.errors.Error,
            OSError,
            ValueError,
            KeyError,
        ) as error:
            self._directory = None
            log.info("acme.unanswered", directory=self._url, error=str(error)[:2000])
            raise Unavailable(f"The certificate authority at {self._url} {_reason(error)}.") from error


class _Talk:
    """What is said and answered on a thread."""

    def __init__(self, client: ClientV2, key: JWKEC) -> None:
        self.client = client
        self.key = key

    def post(self, url: str, what: Any = None) -> requests.Response:
        return self.client.net.post(url, what, new_nonce_url=self.client.directory["newNonce"])

    def body(self, response: requests.Response) -> Any:
        return messages.Order.from_json(response.json())

    def order(self, url: str, response: requests.Response) -> AcmeOrder:
        body, wait = self.body(response), _wait(response)
        state = body.status.name
        if state not in _STATES:
            raise ValueError(f"an order is {state[:40]!r}")
        proofs = self.challenges(body) if state in ("pending", "invalid") else []
        problem = next((one.error for one in proofs if one.error is not None), body.error)
        return AcmeOrder(
            url=url,
            state=state,
            proof=next((one.chall.key_authorization(self.key) for one in proofs), ""),
            asked=all(one.status != messages.STATUS_PENDING for one in proofs),
            problem=None if problem is None else _problem(problem),
            wait=wait,
        )

    def challenges(self, order: Any) -> list[messages.ChallengeBody]:
        """Those by HTTP: of the one name that is ordered.  Raises AcmeRefusal: it wants another proof."""
        found = []
        for url in order.authorizations:
            asked = messages.AuthorizationResource(uri=url, body=messages.Authorization())
            body = self.client.poll(asked)[0].body
            found += [one for one in body.challenges if isinstance(one.chall, challenges.HTTP01)]
        if not found:
            raise AcmeRefusal(
                AcmeProblem(kind="unsupported", detail="It takes no proof by HTTP for the name.")
            )
        return found


def _problem(error: Any) -> AcmeProblem:
    kind = str(error.typ or "").rpartition(":")[2]
    return AcmeProblem(kind=kind, detail=_short(error.detail or error.title or kind or "it says no more"))


def _short(text: str) -> str:
    """What others say, without what a terminal would take for commands."""
    clean = "".join(letter if letter.isprintable() else " " for letter in text)
    return clean if len(clean) <= _LONGEST else f"{clean[:_LONGEST]}…"


def _reason(error: Exception) -> str:
    """What keeps us from it, without the words of libraries where we have better ones."""
    match error:
        case requests.exceptions.SSLError():
            return "shows a certificate that nobody here vouches for (setting 'acme_ca')"
        case requests.Timeout():
            return f"has not answered within {PATIENCE} s"
        case requests.ConnectionError():
            return "cannot be reached"
    return f"does not answer as it should: {_short(str(error))}"


def _wait(response: requests.Response) -> float:
    """Seconds, from Retry-After: a number of them or a date."""
    if "Retry-After" not in response.headers:
        return 0.0
    return max(0.0, ClientV2.retry_after(response, 0).timestamp() - time.time())
