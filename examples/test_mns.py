"""Runs the programs that publish to MNS, in C, Go and Python, against the MNS of a broker that is down at first, and a
small server in DingTalk's place. The Go program is one that was written for go-mns, in tests/go/go-mns."""

import base64
import hashlib
import hmac
import json
import os
import select
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.parse
import urllib.request
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import run

KEY = ("the-id", "the-secret")
TOPIC = "MyTopic"
QUEUE = "arrived"
USER = "5ec1f8504c0c2f0001240063"
SECONDS = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def put(endpoint, resource, body):
    """Makes a queue, a topic or a subscription."""
    date = formatdate(usegmt=True)
    signed = f"PUT\n\ntext/xml\n{date}\nx-mns-version:2015-06-06\n{resource}"
    signature = base64.b64encode(hmac.new(KEY[1].encode(), signed.encode(), hashlib.sha1).digest()).decode()
    request = urllib.request.Request(endpoint + resource, method="PUT", data=body.encode(), headers={
        "Authorization": f"MNS {KEY[0]}:{signature}", "Date": date, "Content-Type": "text/xml",
        "x-mns-version": "2015-06-06"})
    with urllib.request.urlopen(request, timeout=20) as reply:
        if reply.status != 201:
            raise run.Failed(f"{resource} was answered with {reply.status}")


@contextmanager
def mns(address, folder):
    """A broker that speaks MNS there, over what it kept in the folder."""
    environment = {**os.environ, "CEIBA_SECRET": "secret", "CEIBA_MNS_KEY": ":".join(KEY)}
    process = subprocess.Popen(
        [run.PROGRAM, "broker", "--listen", "127.0.0.1:0", "--mns", address, "--data", folder], env=environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        # Both lines come at once, and a read of one may take them both from the pipe.
        ready, _, _ = select.select([process.stdout], [], [], run.START_SECONDS)
        lines = [process.stdout.readline(), process.stdout.readline()] if ready else []
        if lines[1:] != [f"mns on {address}\n"]:
            raise run.Failed(f"the broker said {lines!r}")
        yield
    finally:
        # This very process and no other.
        process.terminate()
        process.wait(20)
        process.stdout.close()


@contextmanager
def mongodb(folder):
    """A server of MongoDB's protocol, over the folder."""
    program = run.ROOT / "target/ferretdb"
    if not program.exists():
        raise run.Failed(f"{program} is missing: tests/go/ferretdb/build.sh builds it")
    data = Path(folder) / "mongodb"
    data.mkdir()
    process = subprocess.Popen([program, data], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        ready, _, _ = select.select([process.stdout], [], [], run.START_SECONDS)
        address = process.stdout.readline().strip() if ready else ""
        if not address:
            raise run.Failed("the MongoDB of the tests did not start")
        yield address
    finally:
        process.kill()
        process.wait(20)
        process.stdin.close()
        process.stdout.close()


class DingTalk(ThreadingHTTPServer):
    """Keeps the forms that it gets."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Form)
        self.forms = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1d0/dingtalk/message"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Form(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = urllib.parse.parse_qs(body, strict_parsing=True)
        self.server.forms.append((self.path, self.headers["Content-Type"], form))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Program:
    """One of the three, with its settings."""

    def __init__(self, language, folder, address, dingtalk, mongo=None):
        self.store = mongo or f"sqlite:{folder}/mns.db"
        self.environment = {**os.environ, "MNS_KEY_ID": KEY[0], "MNS_KEY_SECRET": KEY[1]}
        if language == "go":
            binary = run.BUILT / "go-mns"
            run.BUILT.mkdir(parents=True, exist_ok=True)
            run.build(["go", "build", "-o", binary, "."], cwd=run.ROOT / "tests/go/go-mns")
            self.command = [binary]
            self.environment.update(MNS_ENDPOINT=f"http://{address}/", MNS_TOPIC=TOPIC, MNS_SCHEDULE="* * * * * *",
                                    DINGTALK_URL=dingtalk)
            self.environment["MNS_MONGO_URI" if mongo else "MNS_STORE"] = self.store
            return
        config = json.loads((run.HERE / "mns.json").read_text())
        notifier, topic = config["clients"]
        notifier["provider"]["url"] = dingtalk
        topic["provider"]["url"] = f"http://{address}"
        topic["strategies"][0].update(url=self.store, schedule="* * * * * *")
        path = Path(folder) / "mns.json"
        path.write_text(json.dumps(config))
        self.command = [*run.command(language, "mns"), path]

    def send(self):
        result = subprocess.run([*map(str, self.command), "send"], env=self.environment, stdin=subprocess.DEVNULL,
                                capture_output=True, text=True, timeout=SECONDS)
        if result.returncode != 0:
            raise run.Failed(result.stdout + result.stderr)
        return result.stdout

    @contextmanager
    def retrying(self):
        process = subprocess.Popen([*map(str, self.command), "retry"], env=self.environment, stdin=subprocess.PIPE)
        try:
            yield
            process.stdin.close()
            if process.wait(SECONDS) != 0:
                raise run.Failed(f"{self.command[0]} ended with {process.returncode}")
        finally:
            process.kill()
            process.wait(20)

    def rows(self):
        result = subprocess.run([run.PROGRAM, "outbox", "ls", self.store, "--json"], capture_output=True, text=True,
                                timeout=SECONDS)
        if result.returncode != 0:
            raise run.Failed(result.stderr)
        return [json.loads(line) for line in result.stdout.splitlines()]


class Mns(unittest.TestCase):
    def eventually(self, what, holds):
        deadline = time.monotonic() + SECONDS
        while not holds():
            self.assertLess(time.monotonic(), deadline, f"never in {SECONDS} s: {what}")
            time.sleep(0.1)

    def arrived(self, address, count):
        config = {"provider": {"type": "mns", "url": f"http://{address}", "queue": QUEUE, "access_key_id": KEY[0],
                               "access_key_secret": KEY[1]}}
        result = subprocess.run([run.PROGRAM, "receive", json.dumps(config), "--count", str(count), "--timeout", "20"],
                                capture_output=True, text=True, timeout=SECONDS)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout.splitlines()

    def test_what_could_not_be_published_comes_later_or_is_told_of(self):
        for language in run.LANGUAGES:
            with self.subTest(language=language), tempfile.TemporaryDirectory() as folder:
                self.program(language, folder)

    def test_the_same_with_a_mongodb(self):
        for language in run.LANGUAGES:
            with self.subTest(language=language), tempfile.TemporaryDirectory() as folder, mongodb(folder) as address:
                self.program(language, folder, f"mongodb://{address}/admin")

    def program(self, language, folder, mongo=None):
        address = f"127.0.0.1:{free_port()}"
        data = Path(folder) / "broker"
        dingtalk = DingTalk()
        self.addCleanup(dingtalk.server_close)
        self.addCleanup(dingtalk.shutdown)
        with mns(address, data):
            endpoint = f"http://{address}"
            put(endpoint, f"/queues/{QUEUE}", "<Queue/>")
            put(endpoint, f"/topics/{TOPIC}", "<Topic/>")
            put(endpoint, f"/topics/{TOPIC}/subscriptions/all",
                f"<Subscription><Endpoint>acs:mns:here:1:queues/{QUEUE}</Endpoint>"
                "<NotifyContentFormat>SIMPLIFIED</NotifyContentFormat></Subscription>")
        program = Program(language, folder, address, dingtalk.url, mongo)

        # The topic is down.
        for _ in range(2):
            self.assertIn("stored as row", program.send())
        rows = program.rows()
        self.assertEqual([row["state"] for row in rows], ["pending"] * 2, rows)
        self.assertTrue(all("123" in row["short"] for row in rows), rows)

        # It is up: the clock delivers them.
        with mns(address, data):
            with program.retrying():
                self.eventually("all rows are sent", lambda: program.rows() == [])
            bodies = [json.loads(line) for line in self.arrived(address, 2)]
            self.assertEqual([body["game_id"] for body in bodies], ["123"] * 2)
            # And one goes through at once.
            self.assertIn("sent: ", program.send())
            self.assertEqual(program.rows(), [])
        self.assertEqual(dingtalk.forms, [])

        # It is down for good: after five failures people are told.
        self.assertIn("stored as row", program.send())
        with program.retrying():
            self.eventually("people are told", lambda: dingtalk.forms)
            time.sleep(2.5)
        row, = program.rows()
        self.assertEqual((row["state"], row["attempts"], row["error"]["kind"]), ("dead", 5, "unavailable"), row)
        self.assertEqual(len(dingtalk.forms), 1, dingtalk.forms)
        path, kind, form = dingtalk.forms[0]
        self.assertEqual((path, kind), ("/v1d0/dingtalk/message", "application/x-www-form-urlencoded"))
        self.assertEqual(form["useridList"], [USER])
        text, = form["message"]
        self.assertTrue(text.startswith("测试！！！\n"), text)
        for part in (TOPIC, row["id"], "5 attempts", "unavailable: ", '"game_id"'):
            self.assertIn(part, text)
