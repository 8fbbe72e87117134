"""Joins the rooms: the only place that knows in which order an encoder becomes a verdict.

What is made (`making`) is fetched from the cache; what is seen (`seeing`) is looked at in every run; `observer` is what suites ask.
"""
