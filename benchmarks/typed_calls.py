"""Checks every call of the backend `tensorrt` against the type stubs of TensorRT, which know its names, arguments and properties.

    pip install --no-deps tensorrt-stubs pyright
    python benchmarks/typed_calls.py

Our modules take the vendor's module as an argument, since two products share them, and a type checker knows nothing of such an argument. So
this checks copies of them, in which it is the stubs' module, and in which what the vendor makes has the stubs' type. What a release may
lack is asked for by `hasattr` and `getattr`, which the checker passes by; the tests run those branches.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[1]
MODULES = ("_nvinfer", "_builder_options", "_cuda_session", "_gpu_allocator", "tensorrt")
# What is `Any` in our modules, by the name it goes by there.
VENDORS = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "logger": "ILogger",
    "network": "INetworkDefinition",
    "error": "ParserError",
}
SETTINGS = "[tool.pyright]\ninclude = ['.']\nreportMissingModuleSource = false\nreportMissingImports = false\n"
# What the stubs do not know, by a word of the checker's message. One that is met no more is an error too, so that the list stays short.
UNKNOWN_TO_THE_STUBS = {
    "Dims": "shapes are taken from sequences and read as such, in every release",
    "get_engine_stat": "from 10.15 on, and asked for by hasattr; the stubs are of 10.13",
    "EngineStat": "likewise",
    "gpu_allocator": "a property that can only be set, which stubs leave out; every release has it",
}


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="typed-calls-") as name:
        folder = Path(name)
        for module in MODULES:
            source = (HOUSE / "harness" / "backends" / f"{module}.py").read_text(encoding="utf-8")
            (folder / f"typed_{module.strip('_')}.py").write_text(typed(source), encoding="utf-8")
        (folder / "pyproject.toml").write_text(SETTINGS + f"extraPaths = ['{HOUSE}']\n", encoding="utf-8")
        command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", name]
        report = json.loads(subprocess.run(command, check=False, cwd=name, capture_output=True, text=True).stdout)
    found = [f"{Path(one['file']).name}:{one['range']['start']['line'] + 1}: {one['message']}" for one in report["generalDiagnostics"]]
    unexpected = [line for line in found if not any(word in line for word in UNKNOWN_TO_THE_STUBS)]
    stale = [word for word in UNKNOWN_TO_THE_STUBS if not any(word in line for line in found)]
    print(
        f"{report['summary']['filesAnalyzed']} files, {len(found)} messages, {len(found) - len(unexpected)} of what the stubs do not know"
    )
    print("\n".join([*unexpected, *(f"nothing was said of {word} any more; take it off the list" for word in stale)]))
    return 1 if unexpected or stale or not report["summary"]["filesAnalyzed"] else 0


def typed(source: str) -> str:
    """The module with the stubs' module in place of its argument, and the stubs' types in place of `Any`."""
    text = re.sub(r"\btrt: ModuleType\b", "_trt: Any", source)
    for name, kind in VENDORS.items():
        text = re.sub(rf"\b{name}: Any(?=[,)])", f"{name}: trt.{kind}", text)
        text = re.sub(rf"\bself\._{name}: Any\b", f"self._{name}: trt.{kind}", text)
    text = re.sub(r"^( +)(self\.\w+ = )+None$", r"\1pass", text, flags=re.MULTILINE)  # what is let go of at the end
    for module in MODULES:
        text = text.replace(f"from harness.backends.{module} import", f"from typed_{module.strip('_')} import")
    lines = text.splitlines(keepends=True)
    place = lines.index("from __future__ import annotations\n") + 1
    return "".join([*lines[:place], "\nimport tensorrt as trt\n", *lines[place:]])


if __name__ == "__main__":
    raise SystemExit(main())
