"""The only room that knows pytest: options, selection, fixtures, recording and the summary.

This file is what pytest registers; each hook lives with its subject. Importing it loads no accelerator library.
"""

from harness.plugin.fixtures import engine, expect, observe, prepared, report, show_timings
from harness.plugin.options import pytest_addoption, pytest_cmdline_main, pytest_configure, pytest_report_header
from harness.plugin.properties import bench, for_all
from harness.plugin.recording import pytest_runtest_call, pytest_runtest_makereport, pytest_runtest_setup
from harness.plugin.selection import pytest_collection_modifyitems, pytest_generate_tests, pytest_runtestloop
from harness.plugin.summary import pytest_terminal_summary

__all__ = [
    "bench",
    "engine",
    "expect",
    "for_all",
    "observe",
    "prepared",
    "pytest_addoption",
    "pytest_cmdline_main",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_generate_tests",
    "pytest_report_header",
    "pytest_runtest_call",
    "pytest_runtest_makereport",
    "pytest_runtest_setup",
    "pytest_runtestloop",
    "pytest_terminal_summary",
    "report",
    "show_timings",
]
