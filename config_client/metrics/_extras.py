"""Telling what to install when the library of an implementation is missing."""

from __future__ import annotations

from importlib import import_module

from ..errors import ConfigClientError


def require(module: str, *, distribution: str, extra: str) -> None:
    """Import ``module``; raise ConfigClientError naming the extra that brings its distribution when it is missing."""
    try:
        import_module(module)
    except ImportError:
        pass
    else:
        return
    raise ConfigClientError(f"{distribution} is not installed: pip install 'python-config-client[{extra}]'")
