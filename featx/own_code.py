"""A user's own functions, imported because an option names them: ``package.module:function``."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from featx.errors import InputError, UnknownNameError, UsageError


@contextlib.contextmanager
def current_folder() -> Iterator[None]:
    """Let modules be found in the current folder, as ``python -m`` does and an installed command does not."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def find_function(name: str, *, what: str, thing: str) -> Callable[[], Any]:
    """Import a function.

    Parameters
    ----------
    name : str
        ``"package.module:function"``.
    what, thing : str
        The option and what the function gives, for messages: ``"backbone"``, ``"a network"``.

    Raises
    ------
    UsageError
        If the module or the function cannot be found, or is no function.
    InputError
        If the module cannot be imported.
    """
    module_name, _, function_name = name.partition(":")
    if not all(part.isidentifier() for part in f"{module_name}.{function_name}".split(".")):
        raise UsageError(f"{what} {name!r}: {thing} of your own is written package.module:function")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(f"{what} {name}: importing {module_name} failed: {error}") from error
        raise UsageError(
            f"{what} {name}: there is no module {error.name!r} in {Path.cwd()} or in the Python environment"
        ) from error
    except (ImportError, SyntaxError, AttributeError, NameError, TypeError, ValueError, OSError) as error:
        raise InputError(f"{what} {name}: importing {module_name} failed: {error}") from error
    found: Any = module
    for part in function_name.split("."):
        if not hasattr(found, part):
            raise UnknownNameError("function", name, (f"{module_name}:{known}" for known in vars(module)))
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(f"{what} {name}: this is no function but {type(found).__name__}")
    made: Callable[[], Any] = found
    return made
