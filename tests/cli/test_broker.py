"""`ceiba broker`."""

import json
import signal
import socket
import time
import urllib.parse
import urllib.request

from program import SECRET, Program, WithBroker


class Start(Program):
    def test_the_first_line_names_the_address_also_as_json(self):
        broker = self.start("broker", "--listen", "127.0.0.1:0", "--json")
        address = json.loads(self.line(broker))["listening"]
        self.assertRegex(address, r"^127\.0\.0\.1:[1-9][0-9]*$")
        out, err = self.stop(broker)
        self.assertEqual((out, err), (b"", ""))

    def test_both_signals_end_it_with_0(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            broker = self.start("broker", "--listen", "127.0.0.1:0")
            self.line(broker)
            self.stop(broker, 0, number)

    def test_a_secret_comes_from_a_file_an_argument_or_the_environment(self):
        path = self.write("secret", SECRET + "\n")
        for arguments, secret in ((["--secret-file", path], None), (["--secret", SECRET], None), ([], SECRET),
                                  (["--secret-file", path], "another")):
            broker = self.start("broker", "--listen", "127.0.0.1:0", *arguments, secret=secret)
            address = self.line(broker).decode().split()[-1]
            code, _, err = self.run_it("send", f"kapokmq://{address}/t", input=b"x")
            self.assertEqual(code, 0, err)
            code, _, err = self.run_it("send", f"kapokmq://{address}/t", input=b"x", secret="wrong")
            self.assertEqual(code, 3, err)
            self.one_error(err, "authentication")
            self.stop(broker)

    def test_no_secret_and_empty_ones_are_refused(self):
        empty = self.write("empty", "\n")
        for arguments, secret, named in (([], None, "--secret-file"), ([], "", "CEIBA_SECRET"),
                                         (["--secret", ""], None, "--secret"),
                                         (["--secret-file", empty], None, "empty secret"),
                                         (["--secret-file", self.folder / "none"], None, "none"),
                                         (["--secret-file", empty, "--secret", "x"], None, "cannot be used with")):
            code, out, err = self.run_it("broker", "--listen", "127.0.0.1:0", *arguments, secret=secret)
            self.assertEqual((code, out), (2, b""), err)
            self.one_error(err, "error: usage: ", named)

    def test_an_address_that_is_taken_or_wrong_is_said_so(self):
        broker = self.start("broker", "--listen", "127.0.0.1:0")
        address = self.line(broker).decode().split()[-1]
        for listen, why in ((address, "another program listens there"), ("192.0.2.1:1", "no address of this machine"),
                            ("nonsense", "write HOST:PORT"), ("8011", "write HOST:PORT, such as 127.0.0.1:8011")):
            code, out, err = self.run_it("broker", "--listen", listen)
            self.assertEqual((code, out), (3, b""), err)
            self.one_error(err, "unavailable", listen, "--listen", why)

    def test_a_data_folder_is_one_brokers(self):
        data = self.folder / "data"
        broker = self.start("broker", "--listen", "127.0.0.1:0", "--data", data)
        self.line(broker)
        code, _, err = self.run_it("broker", "--listen", "127.0.0.1:0", "--data", data)
        self.assertEqual(code, 3, err)
        self.one_error(err, "in_use", f"used by the broker of process {broker.pid}")
        self.stop(broker)
        again = self.start("broker", "--listen", "127.0.0.1:0", "--data", data)
        self.line(again)
        self.stop(again)


KAPOKMQ = """
server:
  addr: 127.0.0.1
  port: 0
mq:
  secretKey: the file's own
  pushType: 2
  messageChanBuffer: 5000
  pushMessagesSpeed: 3
  pushCount: 900
  pushRetryTime: 77
  persistentFile: {data}
  isPersistent: 2
  isRePush: 1
  isClean: 1
  cleanTime: 172800
cluster:
  isCluster: 1
  registryAddr: 127.0.0.1
"""
DPMQ = """
server:
  port: 0
mq:
  messageChanBuffer: 100
  pushMessagesSpeed: 0
  sendRetryCount: 3
"""


class OriginalFile(Program):
    """`--config`: the application.yaml of another server."""

    def ask(self, address, path, form=None, key=None):
        data = urllib.parse.urlencode(form or {}).encode() if form is not None or key is not None else None
        request = urllib.request.Request(f"http://{address}{path}", data, {"secretKey": key} if key else {})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())

    def started(self, *arguments, secret=None):
        broker = self.start("broker", *arguments, secret=secret)
        address = self.line(broker).decode().split()[-1].rstrip('"}')
        return broker, f"127.0.0.1:{address.rpartition(':')[2]}", address

    def test_a_kapokmq_servers_file_runs_this_broker_in_its_place(self):
        data = self.folder / "MQDATA"
        path = self.write("application.yaml", KAPOKMQ.format(data=data))
        broker, address, said = self.started("--config", path)
        self.assertRegex(said, r"^0\.0\.0\.0:")
        key = "the file's own"
        config = self.ask(address, "/Console/GetConfig", {}, key)["data"]
        expected = {"pushType": 2, "messageChanBuffer": 5000, "pushMessagesSpeed": 3, "pushCount": 900,
                    "pushRetryTime": 77, "isPersistent": 2, "persistentFile": str(data), "isClean": 0}
        self.assertEqual({name: config[name] for name in expected}, expected)
        code = self.ask(address, "/Producer/Send", {"messageData": "kept", "topic": "t", "delayTime": "0"}, key)["msg"]
        out, err = self.stop(broker)
        lines = err.splitlines()
        self.assertEqual(len(lines), 2, err)
        for line, parts in zip(lines, (("`mq.isClean`", "172800", "kept", "--expire-after"),
                                       ("`cluster.isCluster: 1`", "--node"))):
            self.assertTrue(line.startswith("warning: "), line)
            for part in parts:
                self.assertIn(part, line)
        # It was on disk; and an argument goes before the file.
        broker, address, _ = self.started("--config", path, "--delivery", "work_queue", "--expire-after", "2d", "--json")
        shown = self.ask(address, "/Console/GetMessage", {"messageCode": code}, key)
        self.assertEqual(shown["data"]["MessageData"], "kept")
        config = self.ask(address, "/Console/GetConfig", {}, key)["data"]
        self.assertEqual((config["pushType"], config["isClean"], config["cleanTime"]), (1, 1, 172800))
        code, out, err = self.run_it("receive", f"kapokmq://{address}/t", "--count", "1", secret=key)
        self.assertEqual((code, out), (0, b"kept\n"), err)
        _, err = self.stop(broker)
        self.assertTrue(all("warning" in json.loads(line) for line in err.splitlines()), err)

    def test_a_dpmq_servers_file_needs_no_secret(self):
        broker, address, _ = self.started("--config", self.write("application.yaml", DPMQ))
        config = self.ask(address, "/Console/GetConfig")
        self.assertEqual(config["data"]["messageChanBuffer"], 100)
        sent = self.ask(address, "/ProducerSend", {"messageData": "x", "topic": "t"})
        self.assertEqual((sent["code"], len(sent["msg"])), (0, 40))
        _, err = self.stop(broker)
        self.assertRegex(err, r"(?m)^warning: DPMQ has no login: whoever reaches 0\.0\.0\.0:[0-9]+ can send and receive \(--listen 127")
        # On this machine alone that is no news; and a file that says next to nothing opens no less.
        path = self.write("application.yaml", "server:\n  port: 0\n")
        for more, warned in ((["--listen", "127.0.0.1:0"], False), ([], True)):
            broker, _, _ = self.started("--config", path, "--dpmq", *more, secret=SECRET)
            _, err = self.stop(broker)
            self.assertEqual("warning: DPMQ has no login" in err, warned, err)

    def test_bad_files_are_said_so(self):
        folder = self.write("MQDATA", "a file of the other server")
        for content, parts in (("mq:\n  secretKy: hush\n", ("`mq.secretKy`", "`mq.secretKey`")),
                               ("mq: [\n", ("not valid YAML", "line")),
                               ("", ("no application.yaml",)),
                               ("registry:\n  secretKey: hush\n", ("Serena registry", "--node")),
                               ("mq:\n  secretKey: hush\n  pushType: 7\n", ("`mq.pushType` must be 1 or 2",)),
                               (f"mq:\n  secretKey: hush\n  isPersistent: 1\n  persistentFile: {folder}\n",
                                ("`mq.persistentFile`", "--data"))):
            path = self.write("application.yaml", content)
            code, out, err = self.run_it("broker", "--config", path)
            self.assertEqual((code, out), (2, b""), err)
            self.one_error(err, "error: usage: ", *parts)
            self.assertNotIn("hush", err)
        path = self.write("application.yaml", "mq:\n  secretKey: ''\n")
        code, out, err = self.run_it("broker", "--config", path, secret=None)
        self.assertEqual((code, out), (2, b""), err)
        self.one_error(err, "`mq.secretKey` of the file is empty", "--secret-file")
        code, _, err = self.run_it("broker", "--config", self.folder / "none")
        self.assertEqual(code, 2)
        self.one_error(err, "none", "cannot be read")


class Topics(Program):
    def test_attempts_expiry_bounds_and_keys(self):
        for arguments, parts in ((["--push-count", "2"], "--push-every"), (["--max-attempts", "0"], "--max-attempts"),
                                 (["--expire-after", "0"], "--expire-after"), (["--when-full", "no"], "refuse"),
                                 (["--durability", "sometimes"], "interval"), (["--durability", "fsync"], "--data"),
                                 (["--sync-interval", "2"], "--durability interval"), (["--topic", "t"], "NAME=JSON"),
                                 (["--topic", 't={"max_attempt": 1}'], "max_attempts"),
                                 (["--topic", "t={}", "--topic", "t={}"], "twice")):
            code, _, err = self.run_it("broker", "--listen", "127.0.0.1:0", *arguments)
            self.assertEqual(code, 2, err)
            self.one_error(err, parts)
        broker = self.start("broker", "--listen", "127.0.0.1:0", "--expire-after", "0.2", "--max-messages", "2",
                            "--when-full", "refuse", "--max-bytes", "1000", "--deduplicate", "10m", "--compat",
                            "--push-every", "0.5", "--push-count", "2", "--max-attempts", "3", "--data",
                            self.folder / "data", "--durability", "interval:50ms")
        address = self.line(broker).decode().split()[-1]
        code, out, err = self.run_it("send", f"kapokmq://{address}/t", "--json", input=b"1\n2\n3\n")
        self.assertEqual(code, 1, err)
        self.assertIn("queue_full", err)
        code, out, err = self.run_it("receive", f"kapokmq://{address}/t.dead", "--count", "2", "--timeout", "20")
        self.assertEqual((code, out), (0, b"1\n2\n"), err)
        self.stop(broker)

    def test_one_topic_has_settings_of_its_own(self):
        broker = self.start("broker", "--listen", "127.0.0.1:0", "--max-messages", "1", "--when-full", "refuse",
                            "--topic", 'wide={"max_messages": 3}')
        address = self.line(broker).decode().split()[-1]
        for topic, code in (("wide", 0), ("narrow", 1)):
            seen, _, err = self.run_it("send", f"kapokmq://{address}/{topic}", input=b"1\n2\n3\n")
            self.assertEqual(seen, code, err)
        self.stop(broker)


class Running(WithBroker):
    def test_a_signal_ends_it_soon_though_clients_are_connected(self):
        receiver = self.start("receive", self.url())
        self.sent(b"a\n")
        self.assertEqual(self.line(receiver), b"a\n")
        started = time.monotonic()
        self.stop(self.broker)
        self.assertLess(time.monotonic() - started, 5)
        self.stop(receiver)

    def test_what_a_stranger_says_fakes_no_line_of_the_log(self):
        forged = "x\r\n2026-01-01T00:00:00Z  WARN forged\x1b[2J\x85\u2028\u202e é"
        name = "".join(f"%{byte:02X}" for byte in forged.encode())
        host, port = self.address.split(":")
        with socket.create_connection((host, int(port)), 10) as connection:
            connection.sendall(
                f"GET /Producers/Conn/t/{name} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n"
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
            # A text frame, masked with zeros.
            connection.sendall(b"\x81\x85\0\0\0\0wrong")
            told = b""
            while b"Secret key matching error" not in told:
                part = connection.recv(1000)
                self.assertTrue(part, told)
                told += part
        _, err = self.stop(self.broker)
        self.one_error(err, "WARN", "a wrong key", r"id=x\r\n2026-01-01T00:00:00Z  WARN forged\x1b[2J\x85\u2028\u202e é")


class PublishSubscribe(WithBroker):
    delivery = "publish_subscribe"

    def test_every_consumer_gets_every_message(self):
        receivers = [self.start("receive", self.url(), "--count", "3") for _ in range(2)]
        # A consumer gets what is accepted while it is connected.
        self.until("the connection of both", lambda: self.clients("consumers") == 2)
        self.sent(b"first\nsecond\nthird\n")
        for receiver in receivers:
            self.assertEqual(self.wait(receiver)[0], b"first\nsecond\nthird\n")
