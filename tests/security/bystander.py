"""A user who lists jobs again and again beside a flood; how long each call took, for floods_test.py.

  bystander.py HOST:PORT CA    reads the token's line on stdin, says "ready", and at stdin's end prints milliseconds as JSON
"""
import json
import select
import sys
import time

import http2

PAUSE_S = 0.005
CALLS_A_CONNECTION = 500


def main():
    address, ca = sys.argv[1:]
    token, ms = sys.stdin.readline().strip(), []
    print("ready", flush=True)
    while True:
        with http2.Connection(address, ca) as connection:
            block = http2.header_block(http2.request_fields("/ll.v1.Jobs/List", token))
            for stream in range(1, 2 * CALLS_A_CONNECTION, 2):
                if select.select([sys.stdin], [], [], PAUSE_S)[0]:
                    print(json.dumps(ms), flush=True)
                    return
                began = time.monotonic()
                connection.send(http2.frame(http2.HEADERS, http2.END_HEADERS, stream, block) +
                                http2.frame(http2.DATA, http2.END_STREAM, stream, http2.message(b"\x08\x01")))
                answered = ended = False
                while not ended:
                    got = connection.next_frame()
                    if got is None or got[0] in (http2.RST_STREAM, http2.GOAWAY):
                        sys.exit(f"a call of the bystander ended with {got}")
                    answered = answered or (got[0] == http2.DATA and got[2] == stream)
                    ended = got[0] == http2.HEADERS and got[2] == stream and bool(got[1] & http2.END_STREAM)
                if not answered:
                    sys.exit("a call of the bystander was refused")
                ms.append(1000 * (time.monotonic() - began))


if __name__ == "__main__":
    main()
