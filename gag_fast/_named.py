"""What `package.module:name` names: functions and classes of the user's own."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import Any

from gag_fast._errors import GagFastError


def import_named(name: str, what: str, error: type[GagFastError] = GagFastError) -> Any:
    """Imports it; modules of the working directory can be named too.

    Args:
        name: `package.module:name`, the latter perhaps with dots.
        what: it is to be, for error lines.
        error: is raised where it cannot be had.
    """
    package, _, path = name.partition(":")
    if not package or not path:
        raise error(f"a {what} of your own must be package.module:function, got {name!r}")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(package)
        for part in path.split("."):
            found = getattr(found, part)
    except ImportError as reason:
        raise error(f"{what} {name!r}: cannot import {package!r}: {reason}") from None
    except AttributeError:
        raise error(f"{what} {name!r}: {package} has no function {path!r}") from None
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(here)
    return found
