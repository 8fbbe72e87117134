"""Records to files and back: artifact cache, baselines, gate file, run directory and their JSON.

What knows a path belongs here; what judges, measures or prints does not.
"""
