"""`ceiba mns` over the MNS front of the broker in the box, and `send` and `receive` with its keys."""

import json

from program import Program

KEY = "key-id:key-secret"


class Mns(Program):
    def setUp(self):
        super().setUp()
        self.broker = self.start("broker", "--listen", "127.0.0.1:0", "--mns", "127.0.0.1:0", "--mns-key", KEY)
        self.line(self.broker)
        second = self.line(self.broker).decode()
        self.assertRegex(second, r"^mns on 127\.0\.0\.1:[1-9][0-9]*\n$")
        self.address = second.split()[-1]
        self.key = self.write("key", KEY + "\n")

    def mns(self, *arguments, code=0):
        """Runs a command with the key in a file: stdout and stderr."""
        of, command, *rest = arguments
        got, out, err = self.run_it("mns", of, command, f"mns://{self.address}", *rest, "--secret-file", self.key)
        self.assertEqual(got, code, err + out.decode())
        return out.decode(), err

    def told(self, *arguments):
        return [json.loads(line) for line in self.mns(*arguments, "--json")[0].splitlines()]

    def test_queues(self):
        out, err = self.mns("queue", "create", "q", "--visibility", 40, "--logging", "true")
        self.assertEqual((out, err), ("", "queue q is made\n"))
        _, err = self.mns("queue", "create", "q", "--visibility", 40, "--logging", "true")
        self.assertIn("already", err)
        _, err = self.mns("queue", "create", "q", "--visibility", 41, code=2)
        self.one_error(err, "QueueAlreadyExist")
        self.mns("queue", "set", "q", "--delay", 0, "--visibility", 50, "--retention", 3600, "--max-size", 2048, "--wait", 1)
        (told,) = self.told("queue", "show", "q")
        self.assertEqual((told["name"], told["visibility_timeout"], told["logging_enabled"]), ("q", 50, True))
        self.assertEqual((told["maximum_message_size"], told["message_retention_period"]), (2048, 3600))
        self.assertIn("visibility_timeout: 50\n", self.mns("queue", "show", "q")[0])
        self.assertEqual(self.told("queue", "create", "other"), [{"created": True}])
        self.assertEqual([queue["name"] for queue in self.told("queue", "ls")], ["other", "q"])
        lines = self.mns("queue", "ls", "--prefix", "q")[0].splitlines()
        self.assertEqual([line.split() for line in lines], [["ACTIVE", "INACTIVE", "DELAYED", "NAME"], ["0", "0", "0", "q"]])
        self.mns("queue", "rm", "other")
        _, err = self.mns("queue", "show", "other", code=1)
        self.one_error(err, "not_found", "QueueNotExist")

    def test_messages(self):
        self.mns("queue", "create", "q")
        url = f"mns://{self.address}/queues/q"
        code, _, err = self.run_it("send", url, "--secret-file", self.key, input=b"first\nsecond\n")
        self.assertEqual(code, 0, err)
        # They went over several connections, in no order.
        lines = self.mns("queue", "peek", "q", "--limit", 16)[0].splitlines()
        self.assertEqual(sorted(lines), ["first", "second"])
        (seen,) = self.told("queue", "peek", "q")
        self.assertEqual((seen["body"] in lines, seen["dequeue_count"]), (True, 0))
        process = self.start("receive", url, "--count", 2, "--timeout", 20, "--secret-file", self.key)
        out, _ = self.wait(process)
        self.assertEqual(sorted(out.splitlines()), [b"first", b"second"])
        self.assertEqual(self.mns("queue", "peek", "q")[0], "")

    def test_topics_and_subscriptions(self):
        self.mns("queue", "create", "q")
        self.mns("topic", "create", "t", "--max-size", 4096)
        self.mns("topic", "set", "t", "--logging", "true")
        (told,) = self.told("topic", "show", "t")
        self.assertEqual((told["maximum_message_size"], told["logging_enabled"]), (4096, True))
        self.assertEqual([topic["name"] for topic in self.told("topic", "ls")], ["t"])
        endpoint = "acs:mns:here:1:queues/q"
        self.mns("subscription", "create", "t", "s", "--endpoint", endpoint, "--filter-tag", "red",
                 "--format", "simplified", "--strategy", "backoff_retry")
        self.mns("subscription", "set", "t", "s", "--strategy", "exponential_decay_retry")
        (told,) = self.told("subscription", "show", "t", "s")
        self.assertEqual((told["notify_strategy"], told["filter_tag"]), ("EXPONENTIAL_DECAY_RETRY", "red"))
        self.assertIn(endpoint, self.mns("subscription", "ls", "t")[0])
        _, err = self.mns("subscription", "create", "t", "m", "--endpoint", "nowhere", code=2)
        self.one_error(err, "EndpointInvalid")
        self.mns("subscription", "rm", "t", "s")
        self.assertEqual(self.told("subscription", "ls", "t"), [])
        self.mns("topic", "rm", "t")

    def test_keys(self):
        url = f"mns://{self.address}"
        code, _, err = self.run_it("mns", "queue", "ls", url)
        self.assertEqual(code, 2)
        self.one_error(err, "no access key", "CEIBA_MNS_KEY")
        code, _, err = self.run_it("mns", "queue", "ls", url, "--secret-file", self.write("odd", "nothing"))
        self.assertEqual(code, 2)
        self.one_error(err, "ID:SECRET")
        code, _, err = self.run_it("mns", "queue", "ls", f"mns://key-id@{self.address}", "--secret-file", self.write("alone", "key-secret"))
        self.assertEqual((code, err), (0, ""))
        code, _, err = self.run_it("mns", "queue", "ls", f"mns://{KEY}@{self.address}", "--secret-file", self.key)
        self.assertEqual(code, 2)
        self.one_error(err, "two secrets")
        code, _, err = self.run_it("mns", "queue", "ls", f"mns://key-id:wrong@{self.address}")
        self.assertEqual(code, 3)
        self.one_error(err, "authentication", "SignatureDoesNotMatch")
        code, _, err = self.run_it("mns", "queue", "ls", "kapokmq://:s@127.0.0.1:1/t")
        self.assertEqual(code, 2)
        self.one_error(err, "mns")
        code, _, err = self.run_it("mns", "queue", "ls", "mns://127.0.0.1:1", "--secret-file", self.key)
        self.assertEqual(code, 3)
        self.one_error(err, "unavailable")
        code, _, err = self.run_it("mns", "queue", "ls", url, "--secret-file", self.key, "--json")
        self.assertEqual((code, err), (0, ""))


class Broker(Program):
    def serve(self, *arguments):
        """A broker with MNS, and its two lines."""
        broker = self.start("broker", "--listen", "127.0.0.1:0", "--mns", "127.0.0.1:0", *arguments)
        return broker, self.line(broker).decode(), self.line(broker).decode()

    def test_keys_of_a_file(self):
        keys = self.write("keys", "\nfirst:one secret\r\n  second:two:with:colons  \n\n")
        broker, _, second = self.serve("--mns-key-file", keys)
        address = second.split()[-1]
        for key, code in (("first:one secret", 0), ("second:two:with:colons", 0), ("first:two", 3), ("third:x", 3)):
            got, _, err = self.run_it("mns", "queue", "ls", f"mns://{address}", "--secret-file", self.write("key", key))
            self.assertEqual(got, code, (key, err))
        # They are read at the start.
        keys.write_text("other:key\n")
        got, _, err = self.run_it("mns", "queue", "ls", f"mns://{address}", "--secret-file", self.write("key", "first:one secret"))
        self.assertEqual((got, err), (0, ""))
        self.stop(broker)

    def test_files_of_keys_that_are_none(self):
        for content, part in (
            ("first:one\nhunter2\n", "an access key is written ID:SECRET"),
            ("first:one\n:hunter2\n", "an access key is written ID:SECRET"),
            ("first:hunter2\nsecond:\n", "an access key is written ID:SECRET"),
            ("first:hunter2\nfirst:two\n", "names the access key `first` twice"),
            ("\n \n", "holds no access key"),
            ("", "holds no access key"),
            (b"first:\xff\n", "UTF-8"),
        ):
            keys = self.write("keys", content)
            code, out, err = self.run_it(
                "broker", "--listen", "127.0.0.1:0", "--mns", "127.0.0.1:0", "--mns-key-file", keys)
            self.assertEqual((code, out), (2, b""), (content, err))
            self.one_error(err, part, str(keys))
            self.assertNotIn("hunter2", err)
        missing = self.folder / "missing"
        code, _, err = self.run_it("broker", "--mns", "127.0.0.1:0", "--mns-key-file", missing)
        self.assertEqual(code, 2)
        self.one_error(err, str(missing))
        keys = self.write("keys", KEY)
        code, _, err = self.run_it("broker", "--mns", "127.0.0.1:0", "--mns-key-file", keys, "--mns-key", KEY)
        self.assertEqual(code, 2)
        self.assertIn("--mns-key", err)
        code, _, err = self.run_it("broker", "--listen", "127.0.0.1:0", "--mns-key-file", keys)
        self.assertEqual(code, 2)
        self.assertIn("--mns", err)

    def test_the_second_line_as_json(self):
        broker, first, second = self.serve("--mns-key", KEY, "--json")
        self.assertRegex(json.loads(second)["mns"], r"^127\.0\.0\.1:[1-9][0-9]*$")
        self.assertEqual(list(json.loads(second)), ["mns"])
        self.assertNotIn("mns", json.loads(first))
        self.stop(broker)

    def test_networks_must_be_some(self):
        code, _, err = self.run_it("broker", "--listen", "127.0.0.1:0", "--mns", "127.0.0.1:0", "--mns-key", KEY,
                                   "--mns-endpoint", "here")
        self.assertEqual(code, 2)
        self.one_error(err, "`here` is no network")
