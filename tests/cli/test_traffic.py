"""`ceiba send` and `ceiba receive`, over a broker of their own."""

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import time

from program import PATIENCE, SECRET, Program, WithBroker, piped, sockets


class RoundTrip(WithBroker):
    def test_every_byte_of_every_line_comes_back(self):
        content = "first\n\n\ntabs\tand \\ \" <&>\u2028 木\r\nlast".encode()
        path = self.write("lines", content)
        code, out, err = self.run_it("send", self.url(), "--file", path)
        self.assertEqual((code, out), (0, b""), err)
        self.one_error(err, "sent 5, failed 0, unknown 0")
        self.assertEqual(self.received(5), content + b"\n")
        self.assertEqual(self.received(0), b"", "acknowledged messages came again")

    def test_many_lines_keep_their_order(self):
        content = b"".join(b"line %d\n" % number for number in range(30_000))
        summary = self.sent(content)
        self.assertEqual((summary["sent"], summary["failed"], summary["last_line"]), (30_000, 0, 30_000))
        code, out, err = self.run_it("receive", self.url(), "--count", "30000", "--timeout", PATIENCE)
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(out, content)

    def test_an_empty_input_sends_nothing_and_is_no_failure(self):
        self.assertEqual(self.sent(b"")["sent"], 0)

    def test_a_huge_line_passes(self):
        content = b"x" * (5 << 20)
        self.assertEqual(self.sent(content)["sent"], 1)
        self.assertEqual(self.received(1), content + b"\n")

    def test_lines_that_cannot_be_sent_are_named_and_the_others_go_on(self):
        too_long = b"y" * ((64 << 20) + 1)
        content = b"good\n\xff\xfe\n" + too_long + b"\nalso good\n"
        code, out, err = self.run_it("send", self.url(), "--json", input=content)
        self.assertEqual(code, 1)
        summary = json.loads(out)
        self.assertEqual((summary["sent"], summary["failed"], summary["unknown"]), (2, 2, 0))
        errors = [json.loads(line)["error"] for line in err.splitlines()]
        named = sorted((error["kind"], error["message"].split(":")[0], error["outcome"]) for error in errors)
        self.assertEqual(named, [("too_large", "line 3", "not_sent"), ("unsupported", "line 2", "not_sent")])
        self.assertEqual(self.received(2), b"good\nalso good\n")

    def test_many_bad_lines_are_counted_and_few_are_shown(self):
        code, _, err = self.run_it("send", self.url(), input=b"\xff\n" * 100)
        self.assertEqual(code, 1)
        self.assertEqual(err.count("error: unsupported: line "), 10)
        self.assertIn("90 more lines failed", err)
        self.assertIn("sent 0, failed 100, unknown 0", err)

    def test_json_tells_what_the_wire_told(self):
        self.sent("a \"b\" 木\n".encode())
        code, out, err = self.run_it("receive", self.url(), "--count", "1", "--json")
        self.assertEqual((code, err), (0, ""))
        delivery = json.loads(out)
        self.assertEqual((delivery["body"], delivery["topic"]), ("a \"b\" 木", "t"))
        self.assertRegex(delivery["code"], "^[0-9a-f]{32}$")
        self.assertLess(abs(delivery["created_ms"] - time.time() * 1000), 60_000)

    def test_a_delay_is_never_early(self):
        started = time.monotonic()
        code, _, err = self.run_it("send", self.url(), "--delay", "1", input=b"later\n")
        self.assertEqual(code, 0, err)
        code, out, _ = self.run_it("receive", self.url(), "--count", "1", "--timeout", "20")
        self.assertEqual((code, out), (0, b"later\n"))
        self.assertGreaterEqual(time.monotonic() - started, 1.0)

    def test_a_count_takes_no_more_than_it_says(self):
        self.sent(b"1\n2\n3\n4\n5\n")
        code, out, _ = self.run_it("receive", self.url(), "--count", "2", "--timeout", "20")
        self.assertEqual((code, out), (0, b"1\n2\n"))
        self.assertEqual(self.received(3), b"3\n4\n5\n")

    def test_the_timeout_counts_from_the_last_message(self):
        started = time.monotonic()
        code, out, err = self.run_it("receive", self.url(), "--timeout", "500ms")
        self.assertEqual((code, out, err), (0, b"", ""))
        self.assertGreaterEqual(time.monotonic() - started, 0.5)
        self.sent(b"one\n")
        code, out, err = self.run_it("receive", self.url(), "--timeout", "3", "--count", "2")
        self.assertEqual((code, out), (1, b"one\n"))
        self.one_error(err, "error: timeout: 1 of 2 messages")

    def test_a_json_config_and_a_secret_file_do_as_well(self):
        secret = self.write("secret", SECRET)
        config = json.dumps({"provider": {"type": "kapokmq", "url": f"ws://{self.address}", "topic": "t"}})
        code, _, err = self.run_it("send", config, "--secret-file", secret, input=b"x\n", secret=None)
        self.assertEqual(code, 0, err)
        self.assertEqual(self.received(1), b"x\n")


class Interrupted(WithBroker):
    def test_a_reader_that_goes_away_ends_receive_quietly_and_loses_nothing(self):
        content = b"".join(b"%d\n" % number for number in range(20_000))
        self.sent(content)
        receiver = self.start("receive", self.url())
        seen = self.line(receiver)
        receiver.stdout.close()
        self.assertEqual(receiver.wait(PATIENCE), 0)
        self.assertEqual(receiver.stderr.read(), b"")
        # What went into the pipe is acknowledged; the rest is given back when the connection ends.
        self.until("the end of the connection", lambda: self.clients("consumers") == 0)
        rest = self.received(self.counts()["unconsumed"]).splitlines()
        self.assertEqual(seen, b"0\n")
        self.assertEqual(rest[-1], b"19999")
        self.assertLess(len(rest), 20_001)
        # The pipe held what was acknowledged and not read; what never reached it comes again, without a gap.
        first = int(rest[0])
        self.assertEqual([int(line) for line in rest], list(range(first, 20_000)))

    def test_a_signal_ends_receive_and_what_it_printed_is_acknowledged(self):
        self.sent(b"1\n2\n3\n")
        receiver = self.start("receive", self.url())
        seen = b"".join(self.line(receiver) for _ in range(3))
        self.assertEqual(seen, b"1\n2\n3\n")
        out, err = self.stop(receiver, 0, signal.SIGINT)
        self.assertEqual((out, err), (b"", ""))
        self.assertEqual(self.received(0), b"")
        self.assertEqual((self.counts()["unconsumed"], self.counts()["consumed"]), (0, 3))

    def test_a_signal_ends_send_after_it_flushed_what_it_read(self):
        sender = self.start("send", self.url(), "--json", stdin=subprocess.PIPE)
        sender.stdin.write(b"1\n2\n3\n")
        sender.stdin.flush()
        receiver = self.start("receive", self.url(), "--count", "3")
        self.assertEqual(self.wait(receiver)[0], b"1\n2\n3\n")
        sender.send_signal(signal.SIGTERM)
        self.assertEqual(sender.wait(PATIENCE), 0, "a sender that waits for input did not end")
        summary = json.loads(sender.stdout.read())
        self.assertEqual((summary["sent"], summary["interrupted"], summary["last_line"]), (3, True, 3))

    def test_lines_typed_one_by_one_are_sent_at_once(self):
        sender = self.start("send", self.url(), stdin=subprocess.PIPE)
        receiver = self.start("receive", self.url())
        for line in (b"one\n", b"two\n"):
            sender.stdin.write(line)
            sender.stdin.flush()
            self.assertEqual(self.line(receiver), line)
        sender.stdin.close()
        self.assertEqual(sender.wait(PATIENCE), 0)
        self.stop(receiver)

    def test_when_the_broker_goes_every_line_ends_with_its_outcome(self):
        sender = self.start("send", self.url(deadline="2s"), "--json", "--window", "100", stdin=subprocess.PIPE)
        sender.stdin.write(b"".join(b"%d\n" % number for number in range(1000)))
        sender.stdin.flush()
        self.until("the arrival", lambda: self.counts()["unconsumed"] == 1000)
        # The last acks leave the broker with the count, or a moment after it.
        time.sleep(1)
        self.broker.kill()
        self.broker.wait(PATIENCE)
        started = time.monotonic()
        sender.stdin.write(b"".join(b"%d\n" % number for number in range(150)))
        sender.stdin.close()
        code = sender.wait(PATIENCE)
        self.assertLess(time.monotonic() - started, 20)
        summary = json.loads(sender.stdout.read())
        self.assertEqual(code, 1, summary)
        self.assertEqual(summary["sent"] + summary["failed"] + summary["unknown"], 1150, summary)
        self.assertEqual(summary["sent"], 1000, summary)

    def test_a_second_signal_does_not_wait(self):
        sender = self.start("send", self.url(), stdin=subprocess.PIPE)
        sender.stdin.write(b"1\n")
        sender.stdin.flush()
        self.until("the arrival", lambda: self.counts()["unconsumed"] == 1)
        connected = sockets(sender)
        self.broker.kill()
        self.broker.wait(PATIENCE)
        self.until("the loss", lambda: sockets(sender) < connected)
        sender.stdin.write(b"2\n")
        sender.stdin.flush()
        self.until("the read of line 2", lambda: piped(sender.stdin) == 0)
        time.sleep(1)
        sender.send_signal(signal.SIGINT)
        time.sleep(1)
        self.assertIsNone(sender.poll(), "the line under way should have been waited for")
        sender.send_signal(signal.SIGINT)
        self.assertEqual(sender.wait(PATIENCE), 130)

    def test_a_reader_that_stops_reading_does_not_hold_up_a_signal(self):
        self.sent(b"z" * 100_000 + b"\n" + b"z" * 100_000 + b"\n")
        receiver = self.start("receive", self.url())
        full = fcntl.fcntl(receiver.stdout, fcntl.F_GETPIPE_SZ)
        self.until("a full pipe", lambda: piped(receiver.stdout) == full)
        receiver.send_signal(signal.SIGTERM)
        self.assertEqual(receiver.wait(20), 0)
        self.assertEqual(len(self.received(2)), 200_002, "messages not written in full must come again")


class Progress(WithBroker):
    def test_a_terminal_shows_a_bar(self):
        path = self.write("lines", b"".join(b"line %d\n" % number for number in range(20_000)))
        ours, theirs = pty.openpty()
        sender = self.start("send", self.url(), "--file", path, stderr=theirs)
        os.close(theirs)
        shown = b""
        while True:
            ready, _, _ = select.select([ours], [], [], PATIENCE)
            self.assertTrue(ready, "nothing more came from the terminal")
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            if not part:
                break
            shown += part
        os.close(ours)
        self.assertEqual(sender.wait(PATIENCE), 0)
        self.assertIn(b"%", shown)
        self.assertIn(b"sent 20000, failed 0", shown)


class Refused(Program):
    def test_nobody_there_and_wrong_arguments(self):
        missing = self.folder / "none"
        url = "kapokmq://127.0.0.1:1/t?connect_timeout=1s"
        for arguments, code, *parts in (
            (["send", url], 3, "unavailable"),
            (["receive", url], 3, "unavailable"),
            (["send", "kapokmq://127.0.0.1:1/t", "--file", missing], 2, "usage", "none"),
            (["send", "kapokmq://127.0.0.1:1/t", "--file", self.folder], 2, "usage", "folder"),
            (["send", "kapokmq://127.0.0.1:1"], 2, "invalid_config", "topic"),
            (["send", "kapok://127.0.0.1:1/t"], 2, "invalid_config", "did you mean `kapokmq`"),
            (["send", "kapokmq://127.0.0.1:1/t?windw=3"], 2, "invalid_config", "`windw`", "`window`"),
            (["send", "nonsense"], 2, "invalid_config", "kapokmq://"),
            (["send", "kapokmq://127.0.0.1:1/t", "--delay", "-1"], 2, "usage", "negative"),
            (["send", "kapokmq://127.0.0.1:1/t", "--delay", "soon"], 2, "usage", "soon"),
            (["send", "kapokmq://127.0.0.1:1/t", "--window", "0"], 2, "usage", "--window"),
            (["receive", "kapokmq://127.0.0.1:1/t", "--count", "0"], 2, "usage", "--count"),
            (["receive", "kapokmq://127.0.0.1:1/t", "--timeout", "nan"], 2, "usage", "nan"),
            (["receive"], 2, "usage", "CONFIG"),
            (["sned"], 2, "usage", "send"),
            ([], 2, "usage"),
        ):
            with self.subTest(arguments=arguments):
                result, out, err = self.run_it(*arguments)
                self.assertEqual((result, out), (code, b""), err)
                self.one_error(err, "error: ", *parts)

    def test_errors_as_json(self):
        code, _, err = self.run_it("send", "--json", "kapokmq://127.0.0.1:1/t?connect_timeout=1s")
        self.assertEqual(code, 3)
        error = json.loads(err)["error"]
        self.assertEqual((error["kind"], error["code"], error["retryable"]), ("unavailable", 14, True))
        code, _, err = self.run_it("send", "--json")
        self.assertEqual((code, json.loads(err)["error"]["kind"]), (2, "usage"))

    def test_no_secret_and_two_secrets(self):
        code, _, err = self.run_it("send", "kapokmq://127.0.0.1:1/t", secret=None)
        self.assertEqual(code, 2)
        self.one_error(err, "CEIBA_SECRET", "--secret-file")
        path = self.write("secret", SECRET)
        code, _, err = self.run_it("send", "kapokmq://:x@127.0.0.1:1/t", "--secret-file", path)
        self.assertEqual(code, 2)
        self.one_error(err, "two secrets")
