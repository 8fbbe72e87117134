"""Every project that has the plugin installed pays for its import."""

import subprocess
import sys

HEAVY = {"torch", "open_clip", "modelopt", "onnx", "onnxruntime", "scipy", "tensorrt", "tensorrt_rtx_bindings", "matplotlib", "rich"}


def modules_after(script: str) -> set[str]:
    code = f"{script}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_the_plugin_loads_no_heavy_library():
    assert modules_after("import harness.plugin") & HEAVY == set()


def test_importing_the_command_loads_no_heavy_library():
    assert modules_after("import harness.cli") & HEAVY == set()


def test_importing_the_judges_loads_no_heavy_library():
    judges = "accuracy, engine_graph, latency, memory, onnx_graph, structure"

    assert modules_after(f"from harness.judge import {judges}") & HEAVY == set()
