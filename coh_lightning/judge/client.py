"""An OpenAI-compatible server, asked through the `openai` client with its retries. What is added here keeps texts and
key safe:

    the key             is added to each request as it leaves; the client, its log and our messages never see it
    environment         nothing of OPENAI_API_KEY, OPENAI_ORG_ID, OPENAI_CUSTOM_HEADERS and the like is sent
    redirects           are refused: they would carry the texts to another host
    plain http          only to this machine, unless allowed
    size and time       of a reply are limited, even if the server sends a byte now and then
"""

from __future__ import annotations

import ipaddress
import json
import re
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import httpx2
import openai

from coh_lightning.errors import InputError

LARGEST_REPLY = 4 * 2**20
"""The most bytes of a reply that are read."""
KEPT_HEADERS = {"accept", "connection", "content-length", "content-type", "host"}
"""Of the client; the others tell about this machine or come from the environment."""
COMPLETIONS = "/chat/completions"


class Unanswered(Exception):
    """A request that got no usable answer after all attempts, and why."""


class Endpoint:
    """An OpenAI-compatible server.

    Args:
        url: `https://host/v1`, or the full address of chat/completions.
        timeout: Seconds for one attempt, from connecting to the last byte.
        attempts: The most requests for one question.

    Raises:
        InputError: an address that is neither https nor on this machine.
    """

    def __init__(
        self, url: str, key: str | None = None, *, timeout: float = 60.0, attempts: int = 5, allow_http: bool = False
    ) -> None:
        self.url = _address(url, allow_http=allow_http)
        parts = urllib.parse.urlsplit(self.url)
        self.shown = self.url.partition("?")[0]  # a query may contain a key
        self._key = key
        self._timeout = timeout
        self._attempts = attempts
        self._answered = False
        self._client = openai.OpenAI(
            api_key="set as the request leaves",
            base_url=self.shown.removesuffix(COMPLETIONS),
            default_query=dict(urllib.parse.parse_qsl(parts.query)),
            timeout=timeout,
            max_retries=attempts - 1,
            http_client=openai.DefaultHttpxClient(
                follow_redirects=False,
                trust_env=not _is_loopback(parts.hostname or ""),  # a proxy can't reach this machine
                event_hooks={"request": [self._prepare], "response": [self._limit]},
            ),
        )

    def ask(self, body: Mapping[str, Any]) -> tuple[Any, float]:
        """The server's JSON for a request, and the seconds that the last attempt took.

        Raises:
            InputError: what another attempt can't fix: no connection, a wrong key, path or model, a redirect.
            Unanswered: all attempts failed.
        """
        failed = f"{self._attempts} attempts failed; in the last,"
        try:
            response = self._client.post(COMPLETIONS, cast_to=httpx2.Response, body=dict(body))
            answer = json.loads(response.content)
        # `from None`: the client's exceptions repeat what the server said, which may be the key
        except openai.APITimeoutError:
            raise Unanswered(f"{failed} the server gave no answer within {self._timeout:g} seconds") from None
        except openai.APIConnectionError as error:
            why = self._clean(str(error.__cause__) or type(error.__cause__).__name__)
            if self._answered or not isinstance(error.__cause__, httpx2.ConnectError):
                raise Unanswered(f"{failed} the connection failed ({why})") from None
            raise InputError(
                f"{self.shown} can't be reached ({why}); start the server, or correct --endpoint."
            ) from None
        except openai.APIStatusError as error:
            self._raise_refusal(error.response)
        except (ValueError, RecursionError):
            raise Unanswered("the server answered with something that is not JSON") from None
        self._answered = True
        return answer, time.monotonic() - response.request.extensions["start"]

    def _prepare(self, request: httpx2.Request) -> None:
        for name in set(request.headers) - KEPT_HEADERS:
            del request.headers[name]
        request.headers["User-Agent"] = "coh_lightning"
        if self._key is not None:
            request.headers["Authorization"] = f"Bearer {self._key}"
        request.extensions["start"] = time.monotonic()

    def _limit(self, response: httpx2.Response) -> None:
        response.headers.pop("Content-Encoding", None)  # not asked for; unpacked, a small reply could be a huge one
        assert isinstance(response.stream, httpx2.SyncByteStream)
        deadline = response.request.extensions["start"] + self._timeout
        response.stream = _LimitedStream(response.stream, deadline)

    def _raise_refusal(self, response: httpx2.Response) -> NoReturn:
        code = response.status_code
        words = self._clean(" ".join(response.text[:2000].split()))
        status = f"status {code}" + (f": {words if len(words) <= 200 else words[:197] + '...'}" if words else "")
        if code in (408, 409, 425, 429) or code >= 500:
            wait = response.headers.get("Retry-After")
            after = f", and asked to wait {self._clean(wait)} seconds" if wait and wait.isdecimal() else ""
            raise Unanswered(f"in the last of at most {self._attempts} attempts, the server answered {status}{after}")
        if code in (400, 413, 422) and self._answered:  # it took other questions
            raise Unanswered(f"the server refused one question with {status}")
        if 300 <= code < 400:
            target = self._clean(str(response.headers.get("Location")))
            raise InputError(f"{self.shown} redirects to {target}; if you trust that address, give it as --endpoint.")
        fields = "the server doesn't take this request; change or drop its fields with --body"
        key = "set the variable named by --api-key-env to a valid key"
        remedies = {400: fields, 401: key, 403: "the key may not use this model", 422: fields}
        remedy = remedies.get(code, "check --endpoint and --model")
        raise InputError(f"{self.shown} answers with {status}; {remedy}.")

    def _clean(self, text: str) -> str:
        """Without the key, which servers repeat in their messages, whole or with stars in its middle."""
        if self._key is not None:
            text = text.replace(self._key, "***")
        return re.sub(r"\b(sk|key|pk)-[\w*-]{6,}", r"\1-***", text)


class _LimitedStream(httpx2.SyncByteStream):
    """A reply's bytes, until there are too many or it takes too long."""

    def __init__(self, stream: httpx2.SyncByteStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for part in self._stream:
            size += len(part)
            if size > LARGEST_REPLY:
                raise Unanswered(f"the server's reply is longer than {LARGEST_REPLY:,} bytes")
            if time.monotonic() > self._deadline:
                raise httpx2.ReadTimeout("the reply took too long")  # which the client tries again
            yield part

    def close(self) -> None:
        self._stream.close()


def _address(url: str, *, allow_http: bool) -> str:
    """The address of chat/completions. Raises InputError for one that is unencrypted or contains a password."""
    try:
        parts = urllib.parse.urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        given = url.partition("?")[0]
        raise InputError(f"--endpoint is {given!r}; give the address of a server, such as http://localhost:8000/v1.")
    assert parts.hostname is not None
    if parts.username or parts.password:
        raise InputError("--endpoint contains a user name or password; give the key with --api-key-env.")
    if parts.scheme == "http" and not _is_loopback(parts.hostname) and not allow_http:
        unencrypted = f"--endpoint is http://{parts.hostname}, which sends texts and key unencrypted"
        raise InputError(f"{unencrypted}; use https, or add --allow-http in a network that you trust.")
    path = parts.path.rstrip("/")
    if not path.endswith(COMPLETIONS):
        path = f"{path or '/v1'}{COMPLETIONS}"
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
