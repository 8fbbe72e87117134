"""ONNX file in, engine out, session over it: one module for each vendor, and the only room that talks to one.

What is measured in a session belongs to `measure`, and how the ONNX file came to be to `prepare`.
"""
