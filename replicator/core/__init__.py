"""Pure decisions and codecs: bytes and values in, values out.

Nothing in here opens a file, reads a clock, takes a lock, logs or draws a random number.
"""
