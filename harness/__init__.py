"""Decide whether a TensorRT FP8 CLIP engine may ship.

The rooms and the direction of their imports are in CONTRIBUTING.md. This file holds no logic and imports nothing, so that
`import harness.plugin` stays cheap for every project that has the plugin installed.
"""
