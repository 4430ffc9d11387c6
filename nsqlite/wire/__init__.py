"""NSQ's TCP protocol V2 as bytes and objects: no socket, no loop, no clock and no broker.

Client and server use the same modules.

Next: wire/go.py
"""
