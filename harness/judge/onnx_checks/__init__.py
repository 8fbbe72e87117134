"""Checks O1 to O16: pure functions from an ONNX graph, a recipe's promise and what its weights say, to findings.

A finding names one node. What a check cannot judge is a finding as well, since silence would pass it.
"""
