"""Verdicts to people and to CI: terminal table, Markdown summary, JUnit properties, progress lines.

Everything here turns records into text and returns it; what reads or writes files, or decides anything, does not belong.
"""
