"""Policy of this repository only. The plugin registers itself when the package is installed; naming it here serves plain checkouts."""

pytest_plugins = ["harness.plugin", "pytester"]
