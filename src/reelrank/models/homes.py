"""Where models live whose modules are not imported yet: listing pipelines must not pay for torch.

A pipeline's package says here which of its modules register which names; ``models.registry`` imports them when one is built.
"""

from __future__ import annotations

from importlib import import_module

_HOMES: dict[str, str] = {}


def declare(module: str, *names: str) -> None:
    """``module`` registers ``names`` when it is imported."""
    _HOMES.update(dict.fromkeys(names, module))


def visit(name: str) -> None:
    """Import the module that registers ``name``; nothing happens if none was declared."""
    if name in _HOMES:
        import_module(_HOMES[name])
