"""Ports of this machine for workers that talk to each other."""

import contextlib
import random
import socket


def free_ports(number):
    """Below the range from which systems take the ports of outgoing connections."""
    ports = []
    while len(ports) < number:
        port = random.SystemRandom().randrange(20000, 30000)
        with socket.socket() as server, contextlib.suppress(OSError):
            server.bind(("127.0.0.1", port))
            ports.append(port)
    return ports
