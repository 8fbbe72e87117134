"""Sessions and files in, observations out: embeddings, graphs, layer tables, times, memory and the machine they were taken on.

Whether an observation is good is said in `judge`; how the engine came to be, in `backends`.
"""
