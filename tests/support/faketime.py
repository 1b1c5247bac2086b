"""Processes whose wall clock is another one (libfaketime); their monotonic one stays."""
import glob


def faketime_library():
    found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
    if not found:
        raise RuntimeError("libfaketimeMT.so.1 is missing: apt-get install faketime")
    return found[0]


def with_clock(environment, clock):
    """`clock` is libfaketime's: "+120s", "@2026-03-29 00:59:58", "+0 x10"."""
    return dict(environment, LD_PRELOAD=faketime_library(), FAKETIME=clock, FAKETIME_DONT_FAKE_MONOTONIC="1", DONT_FAKE_MONOTONIC="1")
