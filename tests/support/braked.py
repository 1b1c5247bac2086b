"""A process that hardly gets to run."""
import contextlib
import os
import signal
import threading


@contextlib.contextmanager
def braked(pid, stopped_s, running_s):
    """Stops it for stopped_s seconds and lets it run for running_s, in turn; it runs at the end."""
    off = threading.Event()

    def brake():
        while not off.is_set():
            os.kill(pid, signal.SIGSTOP)
            off.wait(stopped_s)
            os.kill(pid, signal.SIGCONT)
            off.wait(running_s)

    thread = threading.Thread(target=brake, daemon=True)
    thread.start()
    try:
        yield
    finally:
        off.set()
        thread.join()
