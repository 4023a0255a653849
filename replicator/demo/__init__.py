"""A board application to try the agent on: it plays the application, the agent plays itself.

Nothing here may be imported by the agent: these modules use the standard library's SQLite, and two SQLite
libraries in one process on one file silently drop each other's locks.
"""
