"""Starts the program and a broker for each test, and ends what it started."""

import fcntl
import http.client
import json
import os
import pathlib
import select
import signal
import struct
import subprocess
import tempfile
import termios
import time
import unittest

BIN = os.environ.get("CEIBA_BIN", "")
SECRET = "open sesame 木"
PATIENCE = 60


class Program(unittest.TestCase):
    """A test with a folder of its own, and programs that do not outlive it."""

    def setUp(self):
        self.assertTrue(BIN and os.access(BIN, os.X_OK), "CEIBA_BIN must name the program")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def environment(self, secret=SECRET):
        env = {name: value for name, value in os.environ.items() if not name.startswith("CEIBA_")}
        if secret is not None:
            env["CEIBA_SECRET"] = secret
        return env

    def start(self, *arguments, secret=SECRET, **options):
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        process = subprocess.Popen([BIN, *map(str, arguments)], env=self.environment(secret), **options)
        self.addCleanup(self.end, process)
        return process

    def end(self, process):
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass

    def run_it(self, *arguments, input=b"", secret=SECRET):
        """Runs it to its end: exit code, stdout, stderr as text."""
        process = self.start(*arguments, secret=secret, stdin=subprocess.PIPE)
        out, err = process.communicate(input, PATIENCE)
        return process.returncode, out, err.decode()

    def wait(self, process, code=0):
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, code, err)
        return out, err.decode()

    def stop(self, process, code=0, by=signal.SIGTERM):
        process.send_signal(by)
        return self.wait(process, code)

    def line(self, process):
        """The next line of stdout, within the patience."""
        line = b""
        until = time.monotonic() + PATIENCE
        while not line.endswith(b"\n"):
            left = until - time.monotonic()
            ready, _, _ = select.select([process.stdout], [], [], max(left, 0))
            self.assertTrue(ready, f"no line came, only {line!r}")
            byte = os.read(process.stdout.fileno(), 1)
            self.assertTrue(byte, f"stdout ended after {line!r}")
            line += byte
        return line

    def until(self, what, holds):
        """Waits until the condition holds, within the patience."""
        until = time.monotonic() + PATIENCE
        while not holds():
            self.assertLess(time.monotonic(), until, f"{what} did not happen")
            time.sleep(0.02)

    def one_error(self, err, *parts):
        """Asserts that stderr is one line that names these parts."""
        self.assertEqual(len(err.splitlines()), 1, err)
        for part in parts:
            self.assertIn(part, err)
        self.assertNotIn(SECRET, err)

    def write(self, name, content):
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path


def piped(pipe):
    """The bytes in a pipe that nobody has read."""
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0]


def sockets(process):
    """The sockets that a process holds."""
    count = 0
    for entry in pathlib.Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            count += os.readlink(entry).startswith("socket:")
        except FileNotFoundError:
            pass
    return count


class WithBroker(Program):
    """A test with a broker of its own."""

    delivery = "work_queue"

    def setUp(self):
        super().setUp()
        self.broker = self.start("broker", "--listen", "127.0.0.1:0", "--delivery", self.delivery)
        first = self.line(self.broker).decode()
        self.assertRegex(first, r"^listening on 127\.0\.0\.1:[1-9][0-9]*\n$")
        self.address = first.split()[-1]

    def url(self, topic="t", **query):
        parts = "&".join(f"{name}={value}" for name, value in query.items())
        return f"kapokmq://{self.address}/{topic}" + (f"?{parts}" if parts else "")

    def sent(self, content, topic="t", **query):
        """Sends lines and returns the summary."""
        code, out, err = self.run_it("send", self.url(topic, **query), "--json", input=content)
        self.assertEqual((code, err), (0, ""))
        return json.loads(out)

    def received(self, count):
        """So many messages that wait, and whatever else comes within a moment."""
        lines = b""
        for arguments in (["--count", count, "--timeout", PATIENCE], ["--timeout", "0.3"]):
            if count == 0 and "--count" in arguments:
                continue
            code, out, err = self.run_it("receive", self.url(), *arguments)
            self.assertEqual((code, err), (0, ""))
            lines += out
        return lines

    def console(self, path):
        """What the broker's console answers."""
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        try:
            connection.request("POST", path, headers={"secretKey": SECRET.encode()})
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def counts(self):
        """How many messages the broker has: `unconsumed`, `consumed`, `delay`."""
        return self.console("/Console/CountMessage")["data"]

    def clients(self, role):
        """How many `consumers` or `producers` are connected."""
        return len(self.console("/Console/GetClients")[role] or [])
