"""What tests of several processes share: ports, and waiting with a deadline."""
import random
import socket
import time

DEADLINE_S = 60


def free_port():
    """One that was free a moment ago, below those that the kernel gives to outgoing connections: none of them takes it."""
    while True:
        with socket.socket() as s:
            port = random.SystemRandom().randrange(15_000, 32_000)
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def await_that(condition, what, seconds=DEADLINE_S, pause=0.02):
    """The first true value of condition(). `what` is waited for: words, or a function that finds them when they are wanted."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what() if callable(what) else what}")
        time.sleep(pause)
    return value
