"""Asks a running instance over HTTP, and says in one line why there is no good answer."""

from contextlib import suppress
from ipaddress import ip_address
from typing import Any

import httpx
import msgspec

from runtime.config_parsers import Address

ANSWER_S = 20.0  # Stock is set item by item, and may take half of this.


class InstanceError(Exception):
    """An instance did not do what was asked; the message is for the person who asked."""


class NoInstanceError(InstanceError):
    """Nothing listens at its address."""


class RefusedError(InstanceError):
    """The instance answered, and said no."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def open_client(bind: Address, **options: Any) -> httpx.AsyncClient:
    """A client of the instance that is configured to listen on `bind`."""
    # Proxies of the environment are for the world outside; this is our own machine.
    return httpx.AsyncClient(base_url=url_of(bind), timeout=ANSWER_S, trust_env=False, **options)


def url_of(bind: Address) -> str:
    """Where an instance that listens on `bind` can be reached from here."""
    host = bind.host
    with suppress(ValueError):  # A name, not an address.
        if ip_address(host).is_unspecified:  # It listens everywhere; one place is enough for us.
            host = "::1" if ":" in host else "127.0.0.1"
    return f"http://{Address(host, bind.port)}"


async def ask(client: httpx.AsyncClient, method: str, path: str, **options: Any) -> httpx.Response:
    """The answer, where it is a good one.

    Raises:
        NoInstanceError: nobody listens there.
        RefusedError: the answer says no.
        InstanceError: no answer.
    """
    try:
        response = await client.request(method, path, **options)
    except httpx.ConnectError as error:
        raise NoInstanceError(
            f"no instance is running at {client.base_url}: start one with `orders run`, or set"
            " HTTP_BIND and ADMIN_BIND to where it listens"
        ) from error
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        raise InstanceError(
            f"the instance at {client.base_url} gives no answer: {reason}"
        ) from error
    if response.is_success:
        return response
    raise RefusedError(told(response), response.status_code)


async def ask_json(client: httpx.AsyncClient, path: str) -> Any:
    """What stands at a path, as values."""
    response = await ask(client, "GET", path)
    try:
        return msgspec.json.decode(response.content)
    except msgspec.DecodeError as error:
        raise InstanceError(f"what listens at {client.base_url} is not an instance") from error


class Problem(msgspec.Struct):
    """What people are told of a problem+json answer."""

    title: str = ""
    detail: str = ""
    errors: list[dict[str, str]] = []


def problem_in(response: httpx.Response) -> Problem:
    """The problem in an answer; where there is none, its status."""
    with suppress(msgspec.DecodeError):
        problem = msgspec.json.decode(response.content, type=Problem)
        if problem.title:
            return problem
    return Problem(f"HTTP {response.status_code}", f"HTTP status {response.status_code}")


def told(response: httpx.Response) -> str:
    """Why an answer says no, with each fault found on a line of its own."""
    problem = problem_in(response)
    faults = (f"{fault.get('field')}: {fault.get('message')}" for fault in problem.errors)
    return "\n  ".join((problem.detail or problem.title, *faults))
