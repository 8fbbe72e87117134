"""Says good or bad: pure functions from observations and bounds to judgements.

Nothing here reads a file, asks a device or imports an accelerator library; the same observations always give the same answer.
"""
