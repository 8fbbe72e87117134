"""What an exporter gets wrong, mended one named fault at a time.

Each repair changes the model in place and says what it did, or returns None when there is nothing to mend. Seen with Model
Optimizer 0.47; a repair that no longer fires with a later version can go.
"""
