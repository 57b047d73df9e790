#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A host that pretends: it speaks the host channel, takes its time and fails as told, and runs nothing.

As a module: PretendHost(socket_path). As a program: pretend_host.py SOCKET [--name NAME] [--delay SECONDS], until it is killed.
"""
import argparse
import base64
import heapq
import json
import os
import socket
import struct
import threading
import time


FACTS = {"kernel": "pretend", "machine": "x86_64", "items": []}


class WebSocket:
    """The client's side of RFC 6455 over a unix socket; whole messages."""

    def __init__(self, path, target):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {target} HTTP/1.1\r\nHost: carrel\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            more = self.socket.recv(65536)
            if not more:
                raise ConnectionError("closed during the upgrade")
            self.buffer += more
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        self.status = int(head.split(b" ", 2)[1])
        if self.status != 101:
            raise PermissionError(head.decode() + self.buffer.decode())
        self.lock = threading.Lock()

    def _exactly(self, count):
        while len(self.buffer) < count:
            more = self.socket.recv(1 << 20)
            if not more:
                raise ConnectionError("closed")
            self.buffer += more
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def _frame(self, opcode, payload):
        mask, length = os.urandom(4), len(payload)
        head = bytes([0x80 | opcode])
        if length < 126:
            head += bytes([0x80 | length])
        elif length < 65536:
            head += b"\xfe" + struct.pack(">H", length)
        else:
            head += b"\xff" + struct.pack(">Q", length)
        repeated = (mask * (length // 4 + 1))[:length]
        masked = (int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")).to_bytes(length, "little")
        with self.lock:
            self.socket.sendall(head + mask + masked)

    def send(self, message):
        if isinstance(message, bytes):
            self._frame(2, message)
        else:
            self._frame(1, (message if isinstance(message, str) else json.dumps(message)).encode())

    def receive(self):
        """A message: dict for JSON text, bytes for binary, None when the peer closed."""
        whole, kind = b"", 0
        while True:
            first, second = self._exactly(2)
            length = second & 0x7F
            if length == 126:
                length = struct.unpack(">H", self._exactly(2))[0]
            elif length == 127:
                length = struct.unpack(">Q", self._exactly(8))[0]
            payload, opcode = self._exactly(length), first & 0x0F
            if opcode == 8:
                return None
            if opcode == 9:
                self._frame(10, payload)
            if opcode > 8:
                continue
            kind = opcode or kind
            whole += payload
            if first & 0x80:
                return json.loads(whole) if kind == 1 else whole

    def close(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()


FINAL = {"running": "running", "paused": "paused", "suspended": "suspended", "stopped": "stopped", "removed": "removed",
         "staged": "staged", "prepared": "prepared"}


class PretendHost:
    def __init__(self, path, name="local", delay=0.0, connect=True):
        self.path, self.name, self.delay = path, name, delay
        self.truth = {}          # id -> report
        self.assigned = {}       # id -> newest assignment
        self.failures = {}       # name of a workspace -> error
        self.volume_failures = {} # name of a kept volume -> error of its removal
        self.ends = {}           # name of a workspace -> exit status of its program
        self.forgotten, self.streams, self.removed_volumes = [], [], []
        self.on_stream = None    # called with (message, WebSocket)
        self.networks, self.members, self.told = {}, {}, []  # the directory, and each message that changed it
        self.judge = lambda message: {"allowed": True, "rule": "from group:pretend"}
        self.volumes, self.due, self.count = [], [], 0
        self.wake = threading.Condition()
        self.stopping = False
        self.ws = None
        if connect:
            self.connect()

    def connect(self):
        self.ws = WebSocket(self.path, f"/v1/hosts/{self.name}/channel")
        self.stopping = False
        self.ws.send({"type": "hello", "protocol": 1, "version": "0.0-pretend", "boot-id": "pretend", "facts": FACTS})
        self.ws.send({"type": "reports", "full": True, "items": list(self.truth.values())})
        self.threads = [threading.Thread(target=self._listen, args=(self.ws,), daemon=True),
                        threading.Thread(target=self._work, args=(self.ws,), daemon=True)]
        for thread in self.threads:
            thread.start()

    def disconnect(self):
        self.stopping = True
        self.ws.close()
        with self.wake:
            self.wake.notify_all()
        for thread in self.threads:
            thread.join(10)

    def report(self, *items):
        for item in items:
            self.truth[item["id"]] = item
        self.ws.send({"type": "reports", "items": list(items)})

    def progress(self, workspace, step, done, total):
        self.ws.send({"type": "progress", "workspace": workspace, "step": step, "done": done, "total": total})

    def traffic(self, *items):
        self.ws.send({"type": "traffic", "items": list(items)})

    def tell_volumes(self):
        self.ws.send({"type": "volumes", "items": self.volumes})

    def _listen(self, ws):
        try:
            while (message := ws.receive()) is not None:
                self._message(message)
        except (OSError, ConnectionError):
            pass

    def _message(self, message):
        kind = message["type"]
        if kind == "assignments":
            with self.wake:
                for item in message["items"]:
                    self.count += 1
                    self.assigned[item["id"]] = item
                    heapq.heappush(self.due, (time.monotonic() + self.delay, self.count, item))
                self.wake.notify_all()
        elif kind == "forget":
            for one in message["ids"]:
                self.forgotten.append(one)
                self.truth.pop(one, None)
        elif kind == "networks":
            self.told.append(message)
            if message["full"]:
                self.networks, self.members = {}, {}
            for one in message.get("networks", []):
                self.networks[one["name"]] = one
            for one in message.get("members", []):
                self.members[one["id"]] = one
            for one in message.get("gone", []):
                self.members.pop(one, None)
            for one in message.get("gone-networks", []):
                self.networks.pop(one, None)
        elif kind == "suspend-check":
            self.ws.send({"type": "suspend-checked", "id": message["id"], "check": {"level": "memory", "engine": "pretend"}})
        elif kind == "look":
            self.ws.send({"type": "facts", "id": message["id"], "facts": FACTS})
        elif kind == "templates":
            answer = {"done": True} if "remove" in message else {"check": {"items": []}}
            self.ws.send({"type": "answered", "id": message["id"], **answer})
        elif kind == "judge":
            self.ws.send({"type": "judged", "id": message["id"], **self.judge(message)})
        elif kind == "plan":
            self.ws.send({"type": "planned", "id": message["id"],
                          "plan": {"steps": [{"step": "stage", "do": ["pretend"], "undo": "nothing"}]}})
        elif kind == "volume-remove" and message["name"] in self.volume_failures:
            failure = self.volume_failures[message["name"]]
            if failure:  # None: the host says nothing
                self.ws.send({"type": "volume-error", "owner": message["owner"], "name": message["name"], "error": failure})
        elif kind == "volume-remove":
            self.removed_volumes.append((message["owner"], message["name"]))
            self.volumes = [v for v in self.volumes if (v["owner"], v["name"]) != self.removed_volumes[-1]]
            self.tell_volumes()
        elif kind == "stream":
            self.streams.append(message)
            if self.on_stream:
                threading.Thread(target=self._stream, args=(message,), daemon=True).start()

    def _stream(self, message):
        ws = WebSocket(self.path, f"/v1/hosts/{self.name}/streams/{message['stream']}")
        try:
            self.on_stream(message, ws)
        finally:
            ws.close()

    def _work(self, ws):
        while True:
            ready = []
            with self.wake:
                while not self.stopping:
                    now = time.monotonic()
                    while self.due and self.due[0][0] <= now:
                        ready.append(heapq.heappop(self.due)[2])
                    if ready:
                        break
                    self.wake.wait(self.due[0][0] - now if self.due else None)
                if self.stopping:
                    return
            items = [report for one in ready for report in self.settle(one)]
            for item in items:
                self.truth[item["id"]] = item
            try:
                for start in range(0, len(items), 500):
                    ws.send({"type": "reports", "items": items[start:start + 500]})
            except OSError:
                return

    def settle(self, a):
        """The reports that follow from an assignment: the last one is the new truth."""
        old = self.truth.get(a["id"], {"state": "defined", "run": 0})
        name, wish, now = a["spec"]["name"], a["wish"], int(time.time() * 1000)
        report = {"id": a["id"], "generation": a["generation"], "state": FINAL[wish], "run": old["run"],
                  "snapshots": [s["id"] for s in a.get("snapshots", [])], "restore": a.get("restore", 0)}
        for key in ("started", "ended", "exit-status"):
            if key in old:
                report[key] = old[key]
        if wish == "removed":
            return [report]
        if name in self.failures:
            error = self.failures[name]
            if error.get("step") in ("snapshot", "restore", "suspend", "resume"):
                return [dict(old, generation=a["generation"], error=error)]
            return [dict(report, state="failed", error=error)]
        if old["run"] < a.get("run", 0) and wish in ("running", "paused"):
            report.update(run=a["run"], started=now, pid=4242)
            if name in self.ends:
                return [report, dict(report, state="stopped", ended=now, **{"exit-status": self.ends[name]})]
        elif old["state"] in ("stopped", "defined", "staged", "prepared") and wish in ("running", "stopped"):
            report["state"] = old["state"] if wish == "stopped" or old["run"] >= a.get("run", 0) > 0 else report["state"]
        elif wish == "stopped":
            report.update(ended=now, **{"exit-status": 143})
        return [report]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket")
    parser.add_argument("--name", default="local")
    parser.add_argument("--delay", type=float, default=0.0)
    options = parser.parse_args()
    host = PretendHost(options.socket, options.name, options.delay)
    host.threads[0].join()


if __name__ == "__main__":
    main()
