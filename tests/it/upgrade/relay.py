#!/usr/bin/env python3
"""The "new version" of a server, as it is started for an upgrade: it starts the real one, and stands between the two.

It forwards each message with its descriptors, and does at the first of a kind what plan.json, beside it, says:

    {"program": PATH of the real one, "kind": NAME of a message, "when": "before" or "after" it is forwarded, "do": …}

"kill-new", "kill-old": SIGKILL. "stop-new", "stop-old": SIGSTOP, and SIGCONT after "seconds". "close": end both sockets.
"wait": hold it back for "seconds". "garbage": forward something else. "strip": forward it without descriptors.
"version": forward a Hello of the versions 98 and 99. "skip": send a message that may be skipped before it.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time

KINDS = ["Listeners", "Hello", "Ready", "Hub", "Streams", "Sockets", "Took", "Commit", "Live", "IsMain", "Connection",
         "Operation", "Done", "Refused"]
FOLDER = os.path.dirname(sys.argv[0])
PLAN = json.load(open(os.path.join(FOLDER, "plan.json")))


def kind_of(packet):
    """A packet is a CBOR array of the kind and its fields."""
    assert packet[0] == 0x82, packet[:10]
    return KINDS[packet[1]] if packet[1] < len(KINDS) else str(packet[1])


def stop(process):
    """Returns once it has stopped. It goes on later, whatever becomes of this process."""
    os.kill(process, signal.SIGSTOP)
    while open(f"/proc/{process}/stat").read().rsplit(")", 1)[1].split()[0] != "T":
        time.sleep(0.001)
    goes_on = ["sh", "-c", f"sleep {PLAN['seconds']}; kill -CONT {process}"]
    subprocess.Popen(goes_on, stdin=subprocess.DEVNULL, start_new_session=True)


def stand_between():
    """What the program does first: a process of its own waits for the new one, and ends as that does."""
    new = os.fork()
    if new == 0:
        os.environ["NUDGED_UPGRADE"] = "stdin"
        return
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    ended = os.waitstatus_to_exitcode(os.waitpid(new, 0)[1])
    if ended < 0:
        os.kill(os.getpid(), -ended)
    os._exit(ended)


def parent(process):
    return int(open(f"/proc/{process}/stat").read().rsplit(")", 1)[1].split()[1])


def is_shut(end):
    """Whether the process at the other end has given up, and receives nothing more."""
    poll = select.poll()
    poll.register(end, select.POLLRDHUP)
    return bool(poll.poll(0))


class Relay:
    def __init__(self):
        self.old_process = parent(os.getppid())
        self.old = socket.socket(fileno=os.dup(0))
        self.new, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Its own successor is started from our path again.
        self.process = subprocess.Popen(sys.argv, executable=PLAN["program"], stdin=theirs)
        theirs.close()
        self.trace = open(os.path.join(FOLDER, "trace"), "a")
        print("start", self.process.pid, file=self.trace, flush=True)

    def run(self):
        ends = {self.old: self.new, self.new: self.old}
        while True:
            for end in select.select(list(ends), [], [])[0]:
                try:
                    packet, descriptors, _, _ = socket.recv_fds(end, 1 << 17, 253)
                except ConnectionResetError:
                    packet = b""
                if not packet:
                    print("end of", "old" if end is self.old else "new", file=self.trace, flush=True)
                    return
                try:
                    self.forward(packet, descriptors, end, ends[end])
                except (BrokenPipeError, ConnectionResetError):
                    print("nothing takes it", file=self.trace, flush=True)
                    return
                for descriptor in descriptors:
                    os.close(descriptor)

    def forward(self, packet, descriptors, of, to):
        kind = kind_of(packet)
        print(kind, len(descriptors), file=self.trace, flush=True)
        is_it = kind == PLAN.get("kind")
        if is_it and PLAN["when"] == "before":
            packet, descriptors = self.act(packet, descriptors, to)
        if is_shut(of):
            # As in a pair: what was sent before is received, and can no longer be answered.
            print("shut before", kind, file=self.trace, flush=True)
            to.shutdown(socket.SHUT_RD)
        socket.send_fds(to, [packet], descriptors)
        if is_it and PLAN["when"] == "after":
            self.act(packet, descriptors, to)

    def act(self, packet, descriptors, to):
        what = PLAN.pop("do", None)  # Once.
        print("do", what, file=self.trace, flush=True)
        if what == "kill-new":
            self.process.kill()
            self.process.wait()
            sys.exit(0)
        elif what == "kill-old":
            os.kill(self.old_process, signal.SIGKILL)
        elif what == "stop-new":
            stop(self.process.pid)
        elif what == "stop-old":
            stop(self.old_process)
        elif what == "close":
            for end in (self.old, self.new):
                end.shutdown(socket.SHUT_RDWR)
            sys.exit(0)
        elif what == "garbage":
            return b"\x82\x18\x7f\x80", descriptors
        elif what == "strip":
            return packet, []
        elif what == "version":
            assert packet[2:6] == b"\x86\x82\x01\x01", packet
            return packet[:3] + b"\x82\x18\x62\x18\x63" + packet[6:], descriptors
        elif what == "wait":
            time.sleep(PLAN["seconds"])
        elif what == "skip":
            socket.send_fds(to, [b"\x82\x18\xc8\x81\x01"], [])
        return packet, descriptors


if os.environ["NUDGED_UPGRADE"] == "start":
    stand_between()
Relay().run()
