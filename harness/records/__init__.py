"""What flows between rooms: frozen records of the standard library and numpy, valid by construction.

No room re-checks what a record's constructor checked. Nothing here reads a file, a clock or a device.
"""
