"""A program that behaves like QEMU with a pybox guest in it, as far as the hostagent can see. No guest runs.

QMP, the control channel and the API's connections are real sockets; the engine answers a few paths:

    /_ping            OK
    /configuration    the last `configure`, as JSON
    /publish/PORT     asks the hostagent to publish PORT, and answers with what it said
    /engine-restart   the engine begins anew
    /crash            QEMU dies
    /power-off        the guest powers off by itself
    /syncs            how often it was asked to write everything out
    /busy, /lazy      something goes on from now on that only the guest sees, or no longer
    /looks            how often it was asked for that

Behaviour under an accelerator is in the environment: FAKE_QEMU_KVM=ok|hang|crash|fail. Its state can be saved and
loaded, with its memory or without; FAKE_QEMU_STATE=die ends one that was loaded when it goes on, =refuse when it is to
load, =kill ends the hostagent at the moment when the guest should go on. FAKE_QEMU_SAVE=stuck makes a save that does
not end, =slow one that takes a second, =fail one that fails, =kill ends the hostagent when all is saved and QEMU should
quit.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import queue
import re
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

STATE = b"fake state"
MEMORY = b"fake memory"
VERSION = "QEMU emulator version 7.2.99 (fake)"


class FakeQemu:
    def __init__(self, arguments: list[str]) -> None:
        text = " ".join(arguments)
        self.accelerator = arguments[arguments.index("-accel") + 1].split(",")[0]
        self.listeners = {
            name: socket.socket(fileno=int(number)) for name, number in re.findall(r"socket,id=(\w+),fd=(\d+)", text)
        }
        self.console = Path(re.findall(r"file,id=console,path=(\S+)", text)[0])
        self.disk = re.findall(r"id=data,format=qcow2,\S*file=(\S+)", text)
        self.forwards: dict[int, socket.socket] = {}
        self.configuration: dict[str, Any] = {}
        self.ports: list[dict[str, Any]] = []  # that the guest asked for; part of its memory
        self.syncs = 0
        self.looks = 0
        self.busy = False
        self.ignores_shared = False
        self.saves = os.environ.get("FAKE_QEMU_SAVE", "")
        self.loads = os.environ.get("FAKE_QEMU_STATE", "")
        self.control: socket.socket | None = None
        self.answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self.token = 0
        self.incoming = "-incoming" in arguments
        self.runs = threading.Event()
        if ram := re.findall(r"mem-path=([^,]+),share=on", text):
            Path(ram[0]).write_bytes(b"fake RAM")

    def run(self) -> int:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        behaviour = os.environ.get("FAKE_QEMU_KVM", "ok") if self.accelerator == "kvm" else "ok"
        if behaviour == "crash":
            os.abort()
        if behaviour == "fail":
            print("fake: could not access KVM kernel module", file=sys.stderr)
            return 1
        self.console.write_text("" if behaviour == "hang" else "fake: the kernel boots\n")
        if "monitor" not in self.listeners:
            return self.bake(behaviour == "hang")
        if not self.incoming:
            self.runs.set()
        threading.Thread(target=self.serve_control, args=(behaviour == "ok",), daemon=True).start()
        return self.serve_monitor()

    def bake(self, hangs: bool) -> int:
        """Be the one boot of an image build: it ends by itself, or never."""
        if hangs or os.environ.get("FAKE_QEMU_BAKE") == "slow":
            time.sleep(600)
        with self.console.open("a") as console:
            console.write("fake: baked\n")
        return 0

    # -- QMP ----------------------------------------------------------------------------------------

    def serve_monitor(self) -> int:
        while True:
            connection, _ = self.listeners["monitor"].accept()
            version = {"qemu": {"major": 7, "minor": 2, "micro": 99}, "package": ""}
            self.say(connection, QMP={"version": version, "capabilities": []})
            for command in self.commands(connection):
                identity = {"id": command["id"]} if "id" in command else {}
                if command["execute"] == "quit":
                    if self.saves == "kill":
                        os.kill(os.getppid(), signal.SIGKILL)
                    self.say(connection, **{"return": {}}, **identity)
                    return 0
                self.say(connection, **{"return": self.execute(command)}, **identity)
                if command["execute"] in ("migrate", "migrate-incoming"):
                    self.move_state(command["execute"], command["arguments"]["uri"].removeprefix("unix:"))
                    data = {"status": "failed" if self.saves == "fail" else "completed"}
                    stamp = {"seconds": 0, "microseconds": 0}
                    self.say(connection, event="MIGRATION", data=data, timestamp=stamp)

    @staticmethod
    def commands(connection: socket.socket) -> Iterator[dict[str, Any]]:
        """Yield what the client sends: objects one after the other, not always with a line's end between them."""
        text = ""
        while data := connection.recv(65536):
            text = (text + data.decode()).lstrip()
            while text:
                try:
                    command, length = json.JSONDecoder().raw_decode(text)
                except ValueError:
                    break
                text = text[length:].lstrip()
                yield command

    @staticmethod
    def say(connection: socket.socket, **message: object) -> None:
        connection.sendall(json.dumps(message).encode() + b"\n")

    def move_state(self, verb: str, path: str) -> None:
        """Send the state, or take one, for which this listens already; one that is not good ends QEMU."""
        if verb == "migrate":
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(path)
                if self.saves in ("stuck", "slow"):
                    time.sleep(600 if self.saves == "stuck" else 1)
                memory = MEMORY + json.dumps([self.configuration, self.ports, self.syncs]).encode()
                connection.sendall(STATE if self.ignores_shared else memory)
            return
        connection, _ = self.state_listener.accept()
        with connection, connection.makefile("rb") as stream:
            found = stream.read()
        if self.loads == "refuse" or not found.startswith(STATE if self.ignores_shared else MEMORY):
            print("fake: this is no state", file=sys.stderr, flush=True)
            os._exit(1)
        if not self.ignores_shared:
            self.configuration, self.ports, self.syncs = json.loads(found.removeprefix(MEMORY))

    def execute(self, command: dict[str, Any]) -> object:
        if command["execute"] == "query-blockstats":
            return [{"device": "root", "stats": {"rd_operations": 0}}]
        if command["execute"] == "migrate-incoming":
            self.state_listener = socket.socket(socket.AF_UNIX)
            self.state_listener.bind(command["arguments"]["uri"].removeprefix("unix:"))
            self.state_listener.listen()
        if command["execute"] == "migrate-set-capabilities":
            found = {item["capability"]: item["state"] for item in command["arguments"]["capabilities"]}
            self.ignores_shared = found["x-ignore-shared"]
        if command["execute"] == "query-migrate":
            return {"status": "failed", "error-desc": "fake: nobody takes it"}
        if command["execute"] == "stop":
            self.runs.clear()
        if command["execute"] == "cont":
            if self.loads == "kill":
                os.kill(os.getppid(), signal.SIGKILL)
            self.runs.set()
        if command["execute"] == "human-monitor-command":
            return self.human(command["arguments"]["command-line"])
        return {}

    def human(self, line: str) -> str:
        verb, _network, rule = line.split()
        match = re.fullmatch(r"(tcp|udp):([\d.]+):(\d+)(?:-[\d.]+:(\d+))?", rule)
        assert match is not None
        number = int(match[3])
        if verb == "hostfwd_remove":
            self.forwards.pop(number).close()
            return f"host forwarding rule for {rule} removed\r\n"
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((match[2], number))
        listener.listen()
        self.forwards[number] = listener
        return ""

    # -- the control channel ------------------------------------------------------------------------

    def serve_control(self, talks: bool) -> None:
        self.control, _ = self.listeners["control"].accept()
        self.runs.wait()
        if not talks:
            return
        if self.incoming and self.loads == "die":
            os._exit(1)
        self.introduce()
        for line in filter(str.strip, self.control.makefile("r")):
            message = json.loads(line)
            if message["type"] == "answer":
                self.answers.put(message)
            elif message["type"] == "request":
                self.serve_request(message)

    def introduce(self) -> None:
        self.token += 1
        self.tell(type="resync", token=f"life {self.token}")
        hello = {"protocol": int(os.environ.get("FAKE_QEMU_PROTOCOL", "2")), "image": "fake", "generation": ""}
        state = "configured" if self.configuration else "fresh"
        self.tell(type="event", name="hello", params={**hello, "state": state})
        if self.configuration:
            self.tell(type="event", name="ready")

    def serve_request(self, message: dict[str, Any]) -> None:
        assert self.runs.is_set()
        if message["method"] == "configure":
            self.configuration = message["params"]
            self.touch_disk()
            for number, port in enumerate(self.ports):
                self.tell(type="request", id=100 + number, method="publish", params=port)
        if message["method"] == "sync":
            self.syncs += 1
        if message["method"] == "activity":
            self.looks += 1
        self.tell(type="answer", id=message["id"], result={"busy": self.busy})
        if message["method"] == "configure":
            threading.Thread(target=self.dial, daemon=True).start()
            self.tell(type="event", name="ready")
        if message["method"] == "stop":
            self.power_off()

    def power_off(self) -> None:
        self.tell(type="event", name="stopped")
        time.sleep(0.05)
        os._exit(0)

    def touch_disk(self) -> None:
        """Write to the data disk, as whoever mounts it does."""
        for path in self.disk:
            with open(path, "ab") as disk:
                disk.write(b"x")

    def tell(self, **message: object) -> None:
        assert self.control is not None
        self.control.sendall(json.dumps(message).encode() + b"\n")

    # -- the engine ---------------------------------------------------------------------------------

    def dial(self) -> None:
        """Bring the host a connection, and another when it is used, as the engine does."""
        api = self.configuration["api"]
        key = base64.b64decode(api["key"])
        # 10.0.2.2 is this host's loopback, seen from a guest.
        with socket.create_connection(("127.0.0.1", api["port"])) as connection:
            ours = os.urandom(16)
            connection.sendall(ours)
            theirs = connection.recv(48, socket.MSG_WAITALL)[:16]
            connection.sendall(hmac.digest(key, b"guest" + ours + theirs, "sha256"))
            self.serve_client(connection)

    def serve_client(self, connection: socket.socket) -> None:
        with suppress(OSError):
            if request := connection.recv(65536):
                threading.Thread(target=self.dial, daemon=True).start()
                body = json.dumps(self.answer(request.split()[1].decode())).encode()
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    def answer(self, path: str) -> object:
        if path == "/configuration":
            return self.configuration
        if path.startswith("/publish/"):
            params = {"protocol": "tcp", "host_ip": "", "host_port": int(path.split("/")[2]), "guest_port": 40001}
            self.tell(type="request", id=1, method="publish", params=params)
            answer = self.answers.get(timeout=10)
            if "result" in answer:
                self.ports.append({**params, "host_port": answer["result"]["host_port"]})
            return answer
        if path in ("/syncs", "/looks"):
            return getattr(self, path[1:])
        if path in ("/busy", "/lazy"):
            self.busy = path == "/busy"
        if path == "/engine-restart":
            self.configuration = {}
            self.introduce()
        if path == "/crash":
            os._exit(3)
        if path == "/power-off":
            threading.Thread(target=self.power_off).start()
        return "OK"


def make_disk(arguments: list[str]) -> int:
    """Be qemu-img: the header of a qcow2 file is all that is looked at."""
    path, size = arguments[-2], int(arguments[-1])
    Path(path).write_bytes(struct.pack(">4sIQIIQ", b"QFI\xfb", 3, 0, 0, 16, size))
    return 0


def main(name: str, arguments: list[str]) -> int:
    if name == "qemu-img":
        return make_disk(arguments)
    if arguments == ["--version"]:
        print(VERSION)
        return 0
    if arguments == ["-accel", "help"]:
        print("Accelerators supported in QEMU binary:\ntcg\nkvm")
        return 0
    return FakeQemu(arguments).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
