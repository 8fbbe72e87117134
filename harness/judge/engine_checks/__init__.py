"""Checks E1 to E10: pure functions from a graph and what its builder says of the engine, to findings.

Every check judges ONNX nodes, found in the layers through the metadata that the compiler keeps; names and counts of layers change
with every compiler and target. Below the coverage that E1 asks for, nothing is judged, and what is not judged does not pass.
"""
