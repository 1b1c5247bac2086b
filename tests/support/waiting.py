"""What tests of several processes share: ports, and waiting with a deadline."""
import socket
import time

DEADLINE_S = 60


def free_port():
    """One that was free a moment ago."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def await_that(condition, what, seconds=DEADLINE_S, pause=0.02):
    """The first true value of condition(). `what` is waited for: words, or a function that finds them when they are wanted."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what() if callable(what) else what}")
        time.sleep(pause)
    return value
