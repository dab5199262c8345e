"""Who may ask: a token, names by which the server may be called, and what browsers are told."""

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from udh_jax.service.problems import Problem

_LOCAL_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost")

_HEADERS = {
  "X-Content-Type-Options": "nosniff",
  "X-Frame-Options": "DENY",
  "Referrer-Policy": "no-referrer",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
  # Of everything that is not the page: even opened by itself it may do nothing.
  "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
}
PAGE_POLICY = "; ".join(
  (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
  )
)


class SafeHeaders:
  """Adds to each answer what browsers are to be told, unless the answer says otherwise."""

  def __init__(self, app: ASGIApp):
    self._app = app

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """The application."""

    async def send_with_headers(message: Message) -> None:
      if message["type"] == "http.response.start":
        headers = MutableHeaders(scope=message)
        for name, value in _HEADERS.items():
          headers.setdefault(name, value)
      await send(message)

    await self._app(scope, receive, send_with_headers)


def is_loopback(host: str) -> bool:
  """Whether a host is this machine alone."""
  host = host.strip("[]")
  if host.lower().rstrip(".") in _LOCAL_NAMES:
    return True
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False


def host_of(request: Request) -> str:
  """The name by which the server was called, without the port."""
  return _host_in(request.headers.get("host", ""))


def _host_in(text: str) -> str:
  if text.startswith("["):
    return text[: text.find("]") + 1]
  return text.rsplit(":", 1)[0] if ":" in text else text


class Access:
  """Decides who is answered."""

  def __init__(self, *, token: str | None, hosts: Sequence[str] | None):
    """Sets the rules.

    Args:
      token: That clients must know; None asks for none.
      hosts: Names by which the server may be called, besides those of this machine; None allows
        all. A page of another site, whose name is made to lead here, is refused by it.
    """
    self._token = token
    self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
    if token is not None:
      # A browser keeps this in place of the token, which cannot be told from it.
      self._session = hmac.digest(token.encode(), b"udh_jax session", "sha256").hex()
      # Servers on other ports of a host see each other's cookies; theirs have other names.
      self._cookie = f"udh_jax_{hashlib.sha256(self._session.encode()).hexdigest()[:8]}"

  @property
  def has_token(self) -> bool:
    """Whether a token is asked for."""
    return self._token is not None

  def check_host(self, request: Request) -> None:
    """Refuses a request that calls the server by a name that is not its own.

    Raises:
      Problem: Of status 421.
    """
    host = host_of(request)
    if self._hosts is None or host.lower() in self._hosts or is_loopback(host):
      return
    raise Problem(
      f"This server is not called {host[:80]!r}; --allow-host adds a name.",
      status=421,
      code="wrong_host",
    )

  def check_site(self, request: Request) -> None:
    """Refuses what the page of another site makes a browser send.

    Raises:
      Problem: Of status 403.
    """
    headers = request.headers
    site = headers.get("sec-fetch-site")
    if site is None and "origin" in headers:  # which browsers send without encryption, too
      origin = headers["origin"].partition("://")[2]
      own = origin == headers.get("host") or _host_in(origin).lower() in (self._hosts or ())
      site = "same-origin" if own else "cross-site"
    if site in ("cross-site", "same-site"):
      raise Problem(
        "Requests from pages of other sites are refused; --allow-host adds a name of this server.",
        status=403,
        code="other_site",
      )

  def is_known(self, request: Request) -> bool:
    """Whether the client has shown the token."""
    if self._token is None:
      return True
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and _same(given.strip(), self._token):
      return True
    return _same(request.cookies.get(self._cookie, ""), self._session)

  def check_token(self, request: Request) -> None:
    """Refuses a client that has not shown the token.

    Raises:
      Problem: Of status 401.
    """
    if not self.is_known(request):
      raise Problem(
        "A token is needed: send the header Authorization: Bearer TOKEN.",
        status=401,
        code="no_token",
        headers={"WWW-Authenticate": 'Bearer realm="udh_jax"'},
      )

  def begin_session(self, given: str, request: Request, response: Response) -> None:
    """Sets the cookie by which a browser is known from now on.

    Raises:
      Problem: If the token is not the right one.
    """
    if self._token is None:
      return
    if not _same(given, self._token):
      raise Problem("This is not the token of the server.", status=401, code="wrong_token")
    response.set_cookie(
      self._cookie,
      self._session,
      max_age=30 * 24 * 3600,
      httponly=True,
      samesite="strict",
      secure=request.url.scheme == "https",
    )


def _same(given: str, expected: str) -> bool:
  """Compares in a time that does not tell how much is right."""
  return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())
