"""Who sends a request. Knows its header, its peer and the operations; what both kinds of routes call."""

from __future__ import annotations

from ..operations import Operations
from ..security.tokens import Token
from .answers import Scope
from .exchange import note_token
from .peers import peer_of
from .requests import secret_of


def authenticate(operations: Operations, scope: Scope) -> Token:
    """Return the token that a request comes with, and take note of it for the log.

    Raises UnauthenticatedError or ThrottledError; InvalidRequestError when the header comes twice.
    """
    token = operations.authenticate(secret_of(scope["headers"]), peer_of(scope))
    note_token(scope, token.id)
    return token
