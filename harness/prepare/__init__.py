"""From a name to an ONNX file: weights, quantization, export, and the repair of what the exporter gets wrong.

Code that makes or reads what goes *into* an engine belongs here; code that builds, runs or judges engines does not.
"""
