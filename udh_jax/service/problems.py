"""What a client is told when something cannot be done: a status, a code for programs, one line."""

from udh_jax.errors import InputError


class Problem(InputError):
  """A refusal; the message is one line for people.

  Attributes:
    status: Of HTTP.
    code: For programs; it stays the same when the message is worded anew.
    headers: To send with it.
  """

  status = 400
  code = "bad_request"

  def __init__(
    self,
    message: str,
    *,
    status: int | None = None,
    code: str | None = None,
    headers: dict[str, str] | None = None,
  ):
    super().__init__(message)
    self.status = status or self.status
    self.code = code or self.code
    self.headers = headers or {}

  def body(self) -> dict[str, dict[str, str]]:
    """What the answer holds."""
    return {"error": {"code": self.code, "message": " ".join(str(self).split())}}


class Busy(Problem):
  """More is asked than can be done now."""

  status, code = 503, "busy"

  def __init__(self, message: str):
    super().__init__(message, headers={"Retry-After": "1"})
