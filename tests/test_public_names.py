"""The public names: complete, sorted, really there, and loaded only when they are touched."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import featx
from featx import errors


def test_every_public_name_is_in_all_and_all_is_sorted() -> None:
    """As httpx tests its own: what the package imports or loads is exactly what `__all__` lists."""
    tree = ast.parse(Path(featx.__file__).read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("featx.")
        for alias in node.names
    }
    assert {*imported, "__version__"} == set(featx.__all__)
    assert featx.__all__ == sorted(featx.__all__)
    assert set(featx.__all__) <= set(dir(featx))


def test_every_error_of_the_tree_is_public() -> None:
    tree = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, errors.FeatxError)
    }
    assert tree <= set(featx.__all__)


@pytest.mark.parametrize("name", featx.__all__)
def test_every_public_name_can_be_had_and_says_what_it_is(name: str) -> None:
    value = getattr(featx, name)
    assert value is getattr(featx, name)
    if name != "__version__":
        assert value.__name__ == name
        assert inspect.getdoc(value)


def test_star_import_gives_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from featx import *", names)
    assert set(featx.__all__) <= set(names)


STAGES = ["audit", "extract", "fewshot", "finetune", "fit", "lock", "predict", "race", "rank", "suggest"]


@pytest.mark.slow
def test_a_stage_is_the_function_also_after_its_module_was_imported() -> None:
    code = "import featx, inspect\n" + "".join(
        f"import featx.{name}\n"
        f"assert inspect.isfunction(featx.{name}), {name!r}\n"
        f"from featx.{name} import {name}\n"
        f"assert featx.{name} is {name}, {name!r}\n"
        for name in STAGES
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(inspect.ismodule(importlib.import_module(f"featx.{name}")) for name in STAGES)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'featx' has no attribute 'extrakt'"):
        featx.extrakt  # noqa: B018
    with pytest.raises(ImportError):
        exec("from featx import extrakt")


def test_import_featx_loads_nothing_heavy() -> None:
    code = (
        "import sys, featx; dir(featx); featx.FeatxError\n"
        "heavy = {'numpy', 'h5py', 'torch', 'sklearn', 'scipy', 'PIL', 'click', 'rich'}\n"
        "assert not heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
