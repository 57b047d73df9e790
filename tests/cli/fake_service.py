# SPDX-License-Identifier: Apache-2.0
"""
A service that says what a test tells it to: HTTP/1.1 and WebSocket on a unix socket, in threads. It keeps what it was asked.

    fake.answer("GET", "/v1/workspaces", {"items": [...]})        an answer; `path` without the query; status=404 for refusals
    fake.answer("POST", "/v1/x", lambda request: (201, {...}))    or computed from request.method, .path, .query, .body, .json
    fake.stream("/v1/workspaces/web/exec", handler)               handler(stream): stream.first, .receive(), .output(b""), .text({})
"""
import base64
import hashlib
import json
import pathlib
import shutil
import socket
import struct
import tempfile
import threading
import urllib.parse


class Request:
    def __init__(self, method, target, headers, body):
        self.method, self.headers, self.body = method, headers, body
        path, _, query = target.partition("?")
        self.path = urllib.parse.unquote(path)
        self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))

    @property
    def json(self):
        return json.loads(self.body) if self.body else None


class Stream:
    """The service's side of a WebSocket."""

    def __init__(self, reader, connection, request):
        self.reader, self.connection, self.request = reader, connection, request
        kind, text = self.receive()
        assert kind == "text"
        self.first = text

    def receive(self):
        """("text", object), ("input", bytes), ("end", None) at the end of the input, ("gone", None)."""
        while True:
            try:
                head = self.reader.read(2)
            except OSError:
                return "gone", None
            if len(head) < 2:
                return "gone", None
            length = head[1] & 0x7F
            if length == 126:
                length = struct.unpack(">H", self.reader.read(2))[0]
            elif length == 127:
                length = struct.unpack(">Q", self.reader.read(8))[0]
            assert head[1] & 0x80, "a client masks"
            mask = self.reader.read(4)
            data = bytes(b ^ mask[i % 4] for i, b in enumerate(self.reader.read(length)))
            kind = head[0] & 15
            if kind == 1:
                return "text", json.loads(data)
            if kind == 2:
                assert data[0] == 0
                return ("input", data[1:]) if len(data) > 1 else ("end", None)
            if kind == 8:
                return "gone", None

    def frame(self, kind, data):
        n = len(data)
        head = bytes([0x80 | kind]) + (bytes([n]) if n < 126 else b"\x7e" + struct.pack(">H", n) if n < 65536 else
                                       b"\x7f" + struct.pack(">Q", n))
        try:
            self.connection.sendall(head + data)
        except OSError:
            pass

    def output(self, data, channel=1):
        self.frame(2, bytes([channel]) + data)

    def text(self, value):
        self.frame(1, json.dumps(value).encode())

    def exit(self, status):
        self.text({"exit": status})

    def input_until_end(self):
        data = b""
        while True:
            kind, value = self.receive()
            if kind == "input":
                data += value
            elif kind in ("end", "gone"):
                return data


class FakeService:
    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="carrel-fake-"))
        self.path = self.folder / "s"
        self.address = f"unix:{self.path}"
        self.requests, self.answers, self.streams, self.handlers = [], {}, {}, []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen(50)
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def close(self):
        # wakes accept; close alone would leave the thread with a number that is used anew
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()
        shutil.rmtree(self.folder)

    def answer(self, method, path, value, status=200):
        self.answers[method, path] = value if callable(value) else lambda request: (status, value)

    def refuse(self, method, path, status, kind, message, hint=None):
        self.answer(method, path, {"error": {"kind": kind, "message": message, "hint": hint}}, status)

    def stream(self, path, handler):
        self.streams[path] = handler

    def asked(self, method=None):
        return [r for r in self.requests if method in (None, r.method)]

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        reader = connection.makefile("rb")
        try:
            while self.serve_one(reader, connection):
                pass
        except OSError:
            pass
        finally:
            reader.close()
            connection.close()

    def serve_one(self, reader, connection):
        line = reader.readline().decode()
        if not line:
            return False
        method, target, _ = line.split()
        headers = {}
        while (line := reader.readline().decode().strip()):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("upgrade") == "websocket":
            request = Request(method, target, headers, b"")
            self.requests.append(request)
            self.serve_stream(request, reader, connection)
            return False
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while (size := int(reader.readline() or b"-1", 16)):
                if size < 0:
                    return False  # the client gave up
                body += reader.read(size)
                reader.readline()
            reader.readline()
        else:
            body = reader.read(int(headers.get("content-length", 0)))
        request = Request(method, target, headers, body)
        self.requests.append(request)
        self.reply(request, connection)
        return True

    def find(self, request):
        missing = {"error": {"kind": "not-found", "message": f"no {request.path}"}}
        return self.answers.get((request.method, request.path), lambda r: (404, missing))(request)

    def reply(self, request, connection):
        status, value = self.find(request)
        if callable(value):
            value(connection)
            return
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        connection.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)

    def serve_stream(self, request, reader, connection):
        handler = self.streams.get(request.path)
        if not handler:
            self.reply(request, connection)
            return
        key = headers_key = request.headers["sec-websocket-key"]
        assert len(base64.b64decode(headers_key)) == 16
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
        connection.sendall(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                           f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode())
        handler(Stream(reader, connection, request))
