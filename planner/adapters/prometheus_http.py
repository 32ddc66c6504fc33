"""Asking Prometheus over HTTP, within a time, with one clear line for whatever goes wrong."""

import io
import logging
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
import urllib3
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError, InsecureRequestWarning, ReadTimeoutError

from planner.adapters.clock import Deadline, pause
from planner.errors import InputError, MetricsError

_LOG = logging.getLogger(__name__)

_CHUNK_BYTES = 65536
_RETRY_S = (0.1, 0.5)  # before the one retry, jittered [s]
# Of the time left, for connecting and for each wait while reading: together under twice of it.
_CONNECT_SHARE, _READ_SHARE = 0.3, 0.85
_PASSING = frozenset({429, 502, 503, 504})
_REFUSED = frozenset({401, 403})
_GARBAGE = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)


@dataclass(frozen=True, slots=True)
class PrometheusAccess:
    """Where Prometheus is and how to speak to it.

    Attributes
    ----------
    url
        Base URL, a path prefix included; user and password may be in it.
    token_file
        Bearer token, read anew for each query, so that it may rotate.
    ca_file, insecure
        Certificates to trust instead of the system's; or trust anyone.
    headers
        Further headers, such as a tenant's.
    timeout_s
        Time for one `read`, or for one stretch of `history` [s].
    scrape_interval_s
        How often pods are scraped [s]: two of them are waited for before a pod counts as gone.
    """

    url: str
    token_file: Path | None = None
    ca_file: Path | None = None
    insecure: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 10.0
    scrape_interval_s: float = 15.0

    @property
    def where(self) -> str:
        """The URL without user and password, for messages."""
        return re.sub("//[^/]*@", "//", self.url)


class PassingError(MetricsError):
    """A failure that the same query may not meet again a moment later."""


class PrometheusQueries:
    """Runs queries; every failure is a `MetricsError`, an unusable URL an `InputError`."""

    def __init__(self, access: PrometheusAccess) -> None:
        self._access = access
        try:
            self._connect = PrometheusConnect(
                url=access.url.rstrip("/"),
                headers=dict(access.headers),
                auth=_Bearer(access.token_file) if access.token_file else None,
                session=_session(access),
                retry=urllib3.Retry(0, read=False),  # ours fits the timeout, urllib3's does not
            )
        except ValueError as error:
            raise InputError(
                f"--prometheus: {access.where} is no address ({error}); write http://HOST:PORT"
            ) from error

    def instant(self, promql: str, at_s: float, deadline: Deadline) -> list[dict[str, Any]]:
        """Return a query's result at a time [s, Unix], as the API gives it."""
        return self._ask(promql, {"time": f"{at_s:.3f}"}, deadline)

    def span(
        self, promql: str, start_s: float, end_s: float, step_s: float, deadline: Deadline
    ) -> list[dict[str, Any]]:
        """Return a query's result at start, start + step, … ≤ end [s, Unix]."""
        times = {"start": f"{start_s:.3f}", "end": f"{end_s:.3f}", "step": f"{step_s:.3f}"}
        return self._ask(promql, times, deadline)

    def _ask(
        self, promql: str, times: Mapping[str, str], deadline: Deadline
    ) -> list[dict[str, Any]]:
        try:
            return self._attempt(promql, times, deadline)
        except PassingError as error:
            wait_s = random.uniform(*_RETRY_S)
            if deadline.left_s() <= wait_s:
                raise
            _LOG.debug("asking once more in %.1f s: %s", wait_s, error)
        pause(wait_s)
        return self._attempt(promql, times, deadline)

    def _attempt(
        self, promql: str, times: Mapping[str, str], deadline: Deadline
    ) -> list[dict[str, Any]]:
        left_s = deadline.left_s()
        if left_s <= 0:
            raise MetricsError(self._late())
        # A Thanos that lost a store would answer with a part of the pods: rather an error.
        params = {**times, "timeout": f"{left_s * 1000:.0f}ms", "partial_response": "false"}
        try:
            result = self._send(promql, params, left_s)
        except (requests.RequestException, HTTPError, PrometheusApiClientException) as error:
            raise self._explained(error) from error
        except OSError as error:
            raise MetricsError(f"Prometheus at {self._access.where}: {error}") from error
        except _GARBAGE as error:
            raise MetricsError(self._garbled()) from error
        if not isinstance(result, list):
            raise MetricsError(self._garbled())
        return result

    def _send(self, promql: str, params: dict[str, str], left_s: float) -> object:
        if "time" in params:
            return self._connect.custom_query(promql, params, timeout=left_s)
        # The library rounds the ends to whole seconds; the parameters overrule that.
        ends = (datetime.fromtimestamp(float(params[end]), UTC) for end in ("start", "end"))
        return self._connect.custom_query_range(
            promql, *ends, params["step"], params, timeout=left_s
        )

    def _explained(self, error: Exception) -> MetricsError:
        where = f"Prometheus at {self._access.where}"
        if isinstance(error, requests.Timeout | ReadTimeoutError):
            return MetricsError(self._late())
        if isinstance(error, requests.exceptions.SSLError):
            return MetricsError(f"{where}: TLS failed ({_root(error)}); give its CA certificate")
        if isinstance(error, requests.JSONDecodeError):
            return MetricsError(self._garbled())
        if isinstance(error, requests.ConnectionError | HTTPError):
            if isinstance(_root(error), TimeoutError):
                return MetricsError(self._late())
            return PassingError(f"{where} is unreachable: {_root(error)}; check the URL")
        return MetricsError(f"{where}: {error}")

    def _late(self) -> str:
        return (
            f"Prometheus at {self._access.where} gave no answer within {self._access.timeout_s:g} s"
        )

    def _garbled(self) -> str:
        return (
            f"Prometheus at {self._access.where} answered with something that is no query "
            "result; is the URL that of a Prometheus, not of a page or a login?"
        )


def _root(error: BaseException) -> BaseException:
    """Return what an exception goes back to: the innermost says what happened."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error


def _session(access: PrometheusAccess) -> requests.Session:
    session = _BoundedSession(f"Prometheus at {access.where}")
    session.verify = not access.insecure
    if access.insecure:
        urllib3.disable_warnings(InsecureRequestWarning)
    elif access.ca_file is not None:
        session.verify = str(access.ca_file)
    return session


class _Bearer(AuthBase):
    """Adds the token in a file as it is at this moment."""

    def __init__(self, token_file: Path) -> None:
        self._token_file = token_file

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        try:
            token = self._token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise MetricsError(f"token file {self._token_file} can't be read: {error}") from error
        request.headers["Authorization"] = f"Bearer {token}"
        return request


class _BoundedSession(requests.Session):
    """A session whose timeout bounds the whole answer, not each pause between its bytes."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request and read its answer.

        Raises
        ------
        requests.Timeout
            If the answer was not whole in time.
        """
        timeout_s = float(kwargs.pop("timeout"))
        deadline = Deadline(timeout_s)
        split = (_CONNECT_SHARE * timeout_s, _READ_SHARE * timeout_s)
        kwargs["stream"] = True
        response = super().send(request, timeout=split, **kwargs)
        body = bytearray()
        while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
            body += chunk
            if deadline.left_s() <= 0:
                response.close()
                raise requests.Timeout
        response.raw = io.BytesIO(body)
        self._check_status(response)
        return response

    def _check_status(self, response: requests.Response) -> None:
        status = response.status_code
        said = f"HTTP {status} {response.reason}"
        if status in _REFUSED:
            raise MetricsError(f"{self._where} refused the token or password ({said})")
        if status in _PASSING:
            raise PassingError(f"{self._where} is not serving ({said})")
        if status >= 400:
            raise MetricsError(f"{self._where} refused the query ({said}): {_detail(response)}")


def _detail(response: requests.Response) -> str:
    """Return the API's own words about an error, or the beginning of whatever it sent."""
    try:
        return str(response.json()["error"])
    except _GARBAGE:
        return response.text[:200]
