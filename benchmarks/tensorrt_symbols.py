"""Writes what a release of TensorRT has by name, so that tests can stand in for it where it is not.

    LD_LIBRARY_PATH=TRT/libs PYTHONPATH=TRT/python python benchmarks/tensorrt_symbols.py tests/helpers/tensorrt_symbols/10.6.json

It imports the real module, which needs neither a driver nor a GPU, and makes nothing of it. Only names are kept: of classes their public
members and which of them are properties, of enumerations their values, and of the module its functions.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
from pathlib import Path
from typing import Any

MODULES = ("tensorrt", "tensorrt_bindings")


def main() -> None:
    name = next(filter(importlib.util.find_spec, MODULES))
    table = symbols(importlib.import_module(name))
    Path(sys.argv[1]).write_text(json.dumps(table, indent=None, separators=(",", ":"), sort_keys=True) + "\n", encoding="utf-8")
    print(f"{sys.argv[1]}: TensorRT {table['version']}, {len(table['classes'])} classes, {len(table['enums'])} enumerations")


def symbols(module: Any) -> dict[str, Any]:
    """`version`, `functions`, `enums` by name and value, `classes` with `methods` and `properties`."""
    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    classes = {name: value for name, value in public.items() if inspect.isclass(value)}
    enums: dict[str, Any] = {name: value for name, value in classes.items() if hasattr(value, "__members__")}
    return {
        "version": module.__version__,
        "functions": sorted(name for name, value in public.items() if inspect.isbuiltin(value) or inspect.isroutine(value)),
        "enums": {name: {member: int(value) for member, value in kind.__members__.items()} for name, kind in enums.items()},
        "classes": {name: _members(kind) for name, kind in classes.items() if name not in enums},
    }


def _members(kind: type) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"methods": [], "properties": []}
    for name in sorted(name for name in dir(kind) if not name.startswith("_")):
        # A property of a compiled class is a `property` on the class itself; asking an instance could need a driver.
        member = inspect.getattr_static(kind, name)
        found["properties" if isinstance(member, property) else "methods"].append(name)
    return found


if __name__ == "__main__":
    main()
