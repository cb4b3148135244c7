"""`ceiba broker`."""

import json
import signal
import socket
import time

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
        for listen in (address, "192.0.2.1:1", "nonsense"):
            code, out, err = self.run_it("broker", "--listen", listen)
            self.assertEqual((code, out), (3, b""), err)
            self.one_error(err, "unavailable", listen, "--listen")

    def test_a_data_folder_is_one_brokers(self):
        data = self.folder / "data"
        broker = self.start("broker", "--listen", "127.0.0.1:0", "--data", data)
        self.line(broker)
        code, _, err = self.run_it("broker", "--listen", "127.0.0.1:0", "--data", data)
        self.assertEqual(code, 3, err)
        self.assertIn("in_use", err)
        self.stop(broker)
        again = self.start("broker", "--listen", "127.0.0.1:0", "--data", data)
        self.line(again)
        self.stop(again)


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
