"""Servers that speak the real protocols, started by the tests themselves."""
