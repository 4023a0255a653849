"""Figures anyone can reproduce: this agent and its rival side by side, measured from outside.

``python -m benchmarks --help`` lists the questions. Nothing in here runs inside an agent's process.
"""
