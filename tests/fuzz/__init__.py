"""Fuzzing of every parser of the program: whatever the bytes, only errors of ours come out, soon, and in little memory.

``engine`` mutates, ``targets`` is the table of what is fed, ``corpus/`` holds real inputs, ``crashers/`` what once
failed. A part of it is in the default test run; ``make fuzz SECONDS=600`` goes on for as long as it is told.
"""
