"""An engine in a process of its own, possibly of another environment: what runs there, and the hand that holds it.

`serving` is imported in that process, so it needs numpy and the backend's library and nothing else. When to ask which worker is
`pipeline`'s to say.
"""
