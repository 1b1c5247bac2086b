"""Just enough of HTTP/2 and gRPC to misuse them: frames by hand over a TLS connection."""
import socket
import ssl
import struct
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def number(value, bits):
    """An integer with a prefix of so many bits (RFC 7541, 5.1)."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([value])
    out, value = [limit], value - limit
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def text(value):
    data = value.encode() if isinstance(value, str) else value
    return number(len(data), 7) + data


def header_block(fields):
    return b"".join(b"\x00" + text(name) + text(value) for name, value in fields)


def indexing_block(fields):
    """The same, and the other side's table remembers each field (RFC 7541, 6.2.1) ..."""
    return b"".join(b"\x40" + text(name) + text(value) for name, value in fields)


def indexed_block(count):
    """... so that a byte each says the last `count` of them again (6.1)."""
    return bytes(0x80 | 61 + count - i for i in range(count))


def request_fields(path, token=None, more=()):
    fields = [(":method", "POST"), (":scheme", "https"), (":path", path), (":authority", "localhost"), ("te", "trailers"),
              ("content-type", "application/grpc")]
    if token:
        fields.append(("authorization", f"Bearer {token}"))
    return [*fields, *more]


def message(data, compressed=False):
    return bytes([compressed]) + struct.pack(">I", len(data)) + data


def field(number_, data):
    """A length-delimited field of a Protobuf message."""
    out, key, size = b"", number_ << 3 | 2, len(data)
    for value in (key, size):
        while value >= 128:
            out += bytes([value % 128 + 128])
            value //= 128
        out += bytes([value])
    return out + data


def tls(address, ca, alpn=("h2",), certificate=None, timeout=10, **settings):
    context = ssl.create_default_context(cafile=str(ca))
    context.set_alpn_protocols(list(alpn))
    for name, value in settings.items():
        setattr(context, name, value)
    if certificate:
        context.load_cert_chain(f"{certificate}.crt", f"{certificate}.key")
    host, port = address.rsplit(":", 1)
    plain = socket.create_connection((host, int(port)), timeout=timeout)
    try:
        return context.wrap_socket(plain, server_hostname="localhost")
    except BaseException:
        plain.close()
        raise


class Connection:
    """A connection after the preface. Reads whole frames; counts what it may send."""

    def __init__(self, address, ca, **more):
        self.socket = tls(address, ca, **more)
        self.buffer, self.window, self.stream_window = b"", 65535, 65535
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0))

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        self.socket.sendall(data)

    def next_frame(self):
        """(kind, flags, stream, payload); None: the peer has closed the connection."""
        while True:
            if len(self.buffer) >= 9:
                size = int.from_bytes(self.buffer[:3], "big")
                if len(self.buffer) >= 9 + size:
                    head, payload = self.buffer[:9], self.buffer[9:9 + size]
                    self.buffer = self.buffer[9 + size:]
                    kind, flags, stream = head[3], head[4], int.from_bytes(head[5:9], "big")
                    if kind == SETTINGS and not flags & ACK:
                        self.send(frame(SETTINGS, ACK, 0))
                        for at in range(0, size, 6):
                            name, value = struct.unpack(">HI", payload[at:at + 6])
                            if name == 4:
                                self.stream_window = value
                    elif kind == PING and not flags & ACK:
                        self.send(frame(PING, ACK, 0, payload))
                    elif kind == WINDOW_UPDATE:
                        more = int.from_bytes(payload, "big")
                        if stream == 0:
                            self.window += more
                        else:
                            self.stream_window += more
                    return kind, flags, stream, payload
            try:
                data = self.socket.recv(65536)
            except (ConnectionError, ssl.SSLError):
                return None
            if not data:
                return None
            self.buffer += data

    def send_data(self, stream, data, end=True):
        """In frames, as far as the peer's windows allow."""
        for at in range(0, len(data), 16384):
            piece = data[at:at + 16384]
            while self.window < len(piece) or self.stream_window < len(piece):
                got = self.next_frame()
                if got is None or got[0] in (RST_STREAM, GOAWAY) or (got[0] == HEADERS and got[1] & END_STREAM):
                    return got
            self.window -= len(piece)
            self.stream_window -= len(piece)
            self.send(frame(DATA, END_STREAM if end and at + 16384 >= len(data) else 0, stream, piece))
        return None

    def outcome(self, stream, early=None):
        """How the stream ended: the bytes of its last headers, "reset", "goaway", "closed", or "silent" after 15 s."""
        got, last, until = early, b"", time.monotonic() + 15
        while time.monotonic() < until:
            if got is not None:
                kind, flags, of, payload = got
                if kind == HEADERS and of == stream:
                    last = payload
                    if flags & END_STREAM:
                        return last
                if kind == RST_STREAM and of == stream:
                    return last or "reset"
                if kind == GOAWAY:
                    return last or "goaway"
            try:
                got = self.next_frame()
            except TimeoutError:
                break
            if got is None:
                return last or "closed"
        return last or "silent"
