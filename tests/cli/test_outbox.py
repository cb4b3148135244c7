"""`ceiba outbox`: what is stored is listed, shown, sent again, moved and deleted."""

import json
import signal
import socket
import stat

from program import SECRET, WithBroker


def closed_port():
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Outbox(WithBroker):
    def setUp(self):
        super().setUp()
        self.store = f"sqlite:{self.folder}/outbox.db"
        self.down = f"127.0.0.1:{closed_port()}"

    def producer(self, address, id="orders", **keys):
        keys = {"max_attempts": 2, "schedule": "1h", **keys}
        return {
            "id": id,
            "provider": {"type": "kapokmq", "url": f"ws://{address}", "topic": "t", "secret_key": SECRET},
            "deadline": "5s",
            "when_disconnected": "fail",
            "strategies": [{"type": "outbox", "url": self.store, **keys}],
        }

    def config(self, address, name="producer.json", **keys):
        return self.write(name, json.dumps(self.producer(address, **keys)))

    def fill(self, *bodies, **keys):
        """Stores messages: their broker is down."""
        config = json.dumps(self.producer(self.down, **keys))
        lines = "".join(body + "\n" for body in bodies).encode()
        code, out, err = self.run_it("send", config, "--json", input=lines)
        self.assertEqual(code, 0, err)
        counts = json.loads(out)
        self.assertEqual((counts["sent"], counts["stored"], counts["failed"]), (0, len(bodies), 0))
        self.assertIn("it is stored", err)

    def outbox(self, command, *arguments, code=0, where=None, input=b""):
        """Runs a command on the store: what it wrote."""
        where = [self.store] if where is None else where
        got, out, err = self.run_it("outbox", command, *where, *arguments, input=input)
        self.assertEqual(got, code, err + out.decode())
        return (out.decode(), err) if code else out.decode()

    def listed(self, *arguments, **options):
        return [json.loads(line) for line in self.outbox("ls", "--json", *arguments, **options).splitlines()]

    def pending(self):
        stats = json.loads(self.outbox("stats", "--json"))
        self.assertEqual(stats["store"], "sqlite")
        return sum(producer["pending"] for producer in stats["producers"])


class Look(Outbox):
    def test_rows_are_listed_shown_and_counted(self):
        self.fill("first", "second\u202e \x1b[2J", "third")
        self.fill("other", id="mails")
        rows = self.listed()
        self.assertEqual([row["producer"] for row in rows], ["orders"] * 3 + ["mails"])
        self.assertEqual([row["id"] for row in rows], sorted((row["id"] for row in rows), key=int))
        self.assertEqual({row["state"] for row in rows}, {"pending"})
        self.assertEqual(rows[0]["error"]["kind"], "unavailable")
        self.assertEqual(self.listed("--producer", "mails"), rows[3:])
        self.assertEqual(self.listed("--state", "dead"), [])
        # Page by page.
        self.assertEqual(self.listed("--limit", 2), rows[:2])
        self.assertEqual(self.listed("--limit", 2, "--after", rows[1]["id"]), rows[2:])
        self.assertEqual(self.listed("--limit", 0), rows)
        code, out, err = self.run_it("outbox", "ls", self.store, "--limit", 1)
        self.assertEqual((code, err), (0, f"there may be more: --after {rows[0]['id']}\n"))
        head, line = out.decode().splitlines()
        self.assertEqual(head.split()[:3], ["ROW", "STATE", "TRIES"])
        for part in (rows[0]["id"], "pending", "orders", "unavailable: "):
            self.assertIn(part, line)
        shown = self.outbox("show", rows[1]["id"])
        for part in (f"id:           {rows[1]['id']}\n", "state:        pending\n", "\nsecond\\u202e \\x1b[2J\n"):
            self.assertIn(part, shown)
        both = self.outbox("show", "--json", rows[0]["id"], rows[3]["id"]).splitlines()
        self.assertEqual([json.loads(row)["message"]["body"] for row in both], ["first", "other"])
        head, mails, orders = self.outbox("stats").splitlines()
        self.assertEqual(head.split(), ["PRODUCER", "PENDING", "LEASED", "DONE", "DEAD", "OLDEST", "NEXT"])
        self.assertEqual(mails.split()[:5], ["mails", "1", "0", "0", "0"])
        self.assertEqual(orders.split()[:5], ["orders", "3", "0", "0", "0"])

    def test_a_config_names_the_store_and_the_producer(self):
        self.fill("mine")
        self.fill("other", id="mails")
        clients = [self.producer(self.down), self.producer(self.down, id="mails")]
        both = self.write("both.json", json.dumps({"clients": clients}))
        rows = self.listed("--id", "mails", where=["--config", both])
        self.assertEqual([row["producer"] for row in rows], ["mails"])
        one = self.config(self.down)
        self.assertEqual([row["producer"] for row in self.listed(where=["--config", one])], ["orders"])
        self.assertIn("mine", self.outbox("show", "--config", one, self.listed()[0]["id"], where=[]))
        for file, wanted in (
            ([both], "several of its producers have an outbox"),
            ([both, "--id", "nobody"], "no producer `nobody`"),
            ([self.folder / "nothing.json"], "cannot be read"),
            ([self.write("plain.json", '{"id": "a", "provider": {"type": "memory", "topic": "t"}}')], "none of its producers"),
            ([self.folder / "plain.json", "--id", "a"], "has no outbox"),
            ([self.write("bad.json", "{")], "not valid JSON"),
        ):
            out, err = self.outbox("stats", where=["--config", *file], code=2)
            self.one_error(err, wanted)

    def test_what_is_wrong_is_said_in_one_line(self):
        self.fill("first")
        row = self.listed()[0]["id"]
        for arguments, code, parts in (
            (["ls"], 2, ["--config"]),
            (["ls", f"sqlite:{self.folder}/none.db"], 2, ["none.db is not there"]),
            (["ls", "orders"], 2, ["sqlite:FILE"]),
            (["ls", "sqlite:"], 2, ["names no file"]),
            (["ls", self.store, "--state", "gone"], 2, ["pending, leased, done, dead"]),
            (["ls", self.store, "--after", "x"], 2, ["number"]),
            (["ls", self.store, "--config", "x"], 2, ["--config"]),
            (["ls", self.store, "--id", "x"], 2, ["--config"]),
            (["show", self.store], 2, ["no row"]),
            (["show", self.store, "x"], 2, ["`x` is not the number of a row"]),
            (["show", self.store, "999"], 1, ["not_found", "999"]),
            (["retry", self.store], 2, ["--all"]),
            (["retry", self.store, row, "--all"], 2, ["--all"]),
            (["retry", self.store, row, "--producer", "orders"], 2, ["--all"]),
            (["drop", self.store], 2, ["--all"]),
            (["drop", self.store, row, "--state", "dead"], 2, ["--all"]),
            (["purge", self.store], 2, ["--older"]),
            (["purge", self.store, "--older", "7"], 2, ["older"]),
            (["purge", self.store, "--older", "7d", "--state", "pending"], 2, ["done, dead"]),
            (["drain", self.store], 2, ["--config FILE"]),
            (["drain"], 2, ["--config FILE"]),
            (["drop"], 2, ["no store", "--config"]),
            (["stats", f"sqlite:{self.folder}"], 1, ["storage"]),
        ):
            got, out, err = self.run_it("outbox", *arguments)
            self.assertEqual((got, out), (code, b""), (arguments, err))
            self.one_error(err, *parts)
            got, out, err = self.run_it("outbox", *arguments, "--json")
            self.assertEqual(got, code)
            self.assertIn("message", json.loads(err)["error"])
        self.assertFalse((self.folder / "none.db").exists(), "looking at a store does not make it")
        self.assertEqual(self.pending(), 1)

    def test_a_reader_that_leaves_is_no_failure(self):
        self.fill(*(str(number) for number in range(300)))
        listing = self.start("outbox", "ls", self.store, "--limit", 0, "--json")
        listing.stdout.close()
        self.assertEqual(listing.wait(60), 0)


class Change(Outbox):
    def test_rows_are_dropped_by_their_numbers_or_all(self):
        self.fill("first", "second", "third")
        self.fill("other", id="mails")
        first, second, third, other = (row["id"] for row in self.listed())
        self.assertEqual(self.outbox("drop", first), "1 row dropped\n")
        out, err = self.outbox("drop", first, second, "--json", code=1)
        self.assertEqual(json.loads(out), {"dropped": 1, "leased": [], "unknown": [first]})
        out, err = self.outbox("drop", first, code=1)
        self.one_error(err, "not there", first)
        self.assertEqual(self.outbox("drop", "--all", "--state", "dead"), "0 rows dropped\n")
        self.assertEqual(self.outbox("drop", "--all", "--producer", "mails"), "1 row dropped\n")
        self.assertEqual([row["id"] for row in self.listed()], [third])
        self.assertEqual(json.loads(self.outbox("drop", "--all", "--json"))["dropped"], 1)
        self.assertEqual(self.listed(), [])

    def test_all_rows_of_many_pages_are_dropped_and_none_is_skipped(self):
        self.fill(*(str(number) for number in range(2500)))
        self.assertEqual(len(self.listed("--limit", 0)), 2500)
        self.assertEqual(self.outbox("drop", "--all"), "2500 rows dropped\n")
        self.assertEqual(self.pending(), 0)

    def test_what_was_given_up_is_tried_again_and_arrives(self):
        self.fill("first", "second", "third", keep_done="1h")
        down, up = self.config(self.down, keep_done="1h"), self.config(self.address, "up.json", keep_done="1h")
        for given_up in (0, 3):
            out, err = self.outbox("drain", "--json", where=["--config", down], code=1)
            self.assertEqual(
                json.loads(out),
                {"sent": 0, "failed": 3, "given_up": given_up, "pending": 3 - given_up, "interrupted": False},
            )
        rows = self.listed("--state", "dead")
        self.assertEqual([row["attempts"] for row in rows], [2, 2, 2])
        # Nothing is pending any more.
        drained = json.loads(self.outbox("drain", "--json", where=["--config", up]))
        self.assertEqual((drained["sent"], drained["failed"]), (0, 0))
        self.assertEqual(self.outbox("retry", rows[0]["id"]), "1 row due\n")
        out, err = self.outbox("retry", rows[1]["id"], "999", "--json", code=1)
        self.assertEqual(json.loads(out), {"retried": 1})
        self.assertEqual(self.outbox("retry", "--all", "--producer", "nobody"), "0 rows due\n")
        self.assertEqual(self.outbox("retry", "--all"), "1 row due\n", "the others are due already")
        code, out, err = self.run_it("outbox", "drain", "--config", up, "--id", "orders")
        self.assertEqual((code, out, err), (0, b"", "sent 3, failed 0, given up 0, still pending 0\n"))
        self.assertEqual(sorted(self.received(3).splitlines()), [b"first", b"second", b"third"])
        # What was sent is kept as long as the config says, or until it is purged.
        self.assertEqual({row["state"] for row in self.listed()}, {"done"})
        self.assertEqual(self.outbox("purge", "--older", "1h"), "0 rows purged\n")
        self.assertEqual(json.loads(self.outbox("purge", "--older", "0s", "--json")), {"purged": 3})
        self.assertEqual(self.listed(), [])

    def test_dead_rows_are_purged_when_told(self):
        self.fill("first", max_attempts=1)
        self.outbox("drain", where=["--config", self.config(self.down, max_attempts=1)], code=1)
        self.assertEqual(self.outbox("purge", "--older", "0s"), "0 rows purged\n")
        self.assertEqual(self.outbox("purge", "--older", "0s", "--state", "dead"), "1 row purged\n")

    def test_the_address_may_be_a_secret(self):
        self.fill("first")
        file = self.write("address", self.store + "\n")
        config = self.producer(self.down)
        config["strategies"][0]["url"] = {"file": str(file)}
        where = ["--config", self.write("secret.json", json.dumps(config))]
        self.assertEqual(json.loads(self.outbox("ls", "--json", where=where))["short"], "first")
        self.outbox("drain", where=where, code=1)
        config["strategies"][0]["url"] = {"env": "NOT_SET_ANYWHERE"}
        where = ["--config", self.write("secret.json", json.dumps(config))]
        got, out, err = self.run_it("outbox", "ls", *where)
        self.assertEqual((got, out), (2, b""), err)
        self.assertIn("NOT_SET_ANYWHERE", err)

    def test_a_drain_that_is_stopped_leaves_the_rows(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.listen(16)
            config = self.producer("{}:{}".format(*silent.getsockname()))
            config |= {"when_disconnected": "wait", "deadline": "40s"}
            self.fill("first")
            draining = self.start("outbox", "drain", "--config", self.write("s.json", json.dumps(config)), "--json")
            silent.accept()
            self.until("the lease", lambda: self.listed()[0]["state"] == "leased")
            out, err = self.stop(draining, code=130, by=signal.SIGINT)
            self.assertTrue(json.loads(out)["interrupted"], out)
        self.assertEqual(self.listed()[0]["state"], "pending")


class Transfer(Outbox):
    def test_an_export_is_imported_once(self):
        self.fill(*(f"body {number} 木" for number in range(1200)))
        other = f"sqlite:{self.folder}/other.db"
        exporting = self.start("outbox", "export", self.store)
        importing = self.start("outbox", "import", other, stdin=exporting.stdout)
        exporting.stdout.close()
        out, err = importing.communicate(timeout=60)
        self.assertEqual((importing.returncode, out), (0, b""), err)
        self.assertEqual(err, b"1200 rows imported, 0 rows there already\n")
        self.assertEqual(exporting.stderr.read(), b"1200 rows exported\n")
        file = self.folder / "rows.jsonl"
        self.assertEqual(json.loads(self.outbox("export", "--file", file, "--json"))["exported"], 1200)
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        again = self.outbox("import", "--file", file, "--json", where=[other])
        self.assertEqual(json.loads(again), {"imported": 0, "known": 1200, "interrupted": False})
        # Into the store that it is from too.
        again = self.outbox("import", "--json", input=file.read_bytes())
        self.assertEqual(json.loads(again), {"imported": 0, "known": 1200, "interrupted": False})
        mine, theirs = self.listed("--limit", 0), self.listed("--limit", 0, where=[other])
        self.assertEqual([row["short"] for row in mine], [row["short"] for row in theirs])
        out, err = self.outbox("export", "--file", file, code=2)
        self.one_error(err, "cannot be made")

    def test_a_part_is_exported(self):
        self.fill("mine")
        self.fill("other", id="mails")
        lines = self.outbox("export", "--producer", "mails", "--json").splitlines()
        self.assertEqual([json.loads(line)["producer"] for line in lines], ["mails"])
        self.assertEqual(self.outbox("export", "--state", "dead"), "")

    def test_a_wrong_line_is_named_and_its_block_left_out(self):
        self.fill("first")
        line = self.outbox("export").encode()
        other = [f"sqlite:{self.folder}/other.db"]
        for wrong, part in ((b"no row\n", "line 2"), (b"\xff\n", "line 2"), (line[:60] + b"\n", "line 2")):
            out, err = self.outbox("import", where=other, input=line + wrong, code=2)
            self.assertEqual(err.splitlines()[0], "0 rows imported, 0 rows there already")
            self.assertIn(part, err.splitlines()[1])
        out, err = self.outbox("import", "--file", self.folder / "nothing", where=other, code=2)
        self.one_error(err, "cannot be read")

    def test_bodies_are_kept_to_the_byte(self):
        body = "".join(map(chr, range(0x300))).encode() * 100
        config = json.dumps(self.producer(self.down))
        code, out, err = self.run_it("send", config, "--whole", input=body)
        self.assertEqual(code, 0, err)
        other = f"sqlite:{self.folder}/other.db"
        self.outbox("import", where=[other], input=self.outbox("export").encode())
        self.store = other
        up = self.config(self.address)
        self.outbox("drain", where=["--config", up])
        code, out, err = self.run_it("receive", self.url(), "--count", 1, "--json")
        self.assertEqual(code, 0, err)
        self.assertEqual(json.loads(out)["body"].encode(), body)


class Around(Outbox):
    def test_a_send_says_what_it_stored(self):
        config = json.dumps(self.producer(self.down))
        code, out, err = self.run_it("send", config, input=b"first\nsecond\n")
        self.assertEqual((code, out), (0, b""))
        self.assertIn("warning: line 2: it is stored", err)
        self.assertIn("sent 0, stored 2, failed 0, unknown 0 in ", err)
        code, out, err = self.run_it("send", config, "--whole", "--json", input=b"third")
        told = json.loads(out)
        self.assertEqual((code, told["sent"], told["stored"]), (0, 0, True))
        code, out, err = self.run_it("send", config, "--whole", input=b"fourth")
        self.assertRegex(err, r"stored, id [0-9]+\n$")

    def test_a_config_with_an_outbox_is_checked(self):
        good = self.config(self.down)
        code, out, err = self.run_it("config", "check", good)
        self.assertEqual((code, err), (0, ""))
        for keys, parts in (
            ({"when": "sometimes"}, ["strategies", "when"]),
            ({"schedul": "5s"}, ["strategies", "did you mean `schedule`"]),
            ({"schedule": "0 0 0 31 2 *"}, ["strategies", "never"]),
        ):
            code, out, err = self.run_it("config", "check", self.config(self.down, "wrong.json", **keys))
            self.assertEqual((code, out), (2, b""))
            self.one_error(err, *parts)
        misspelt = self.producer(self.down)
        misspelt["strategies"][0]["type"] = "outbax"
        code, out, err = self.run_it("config", "check", self.write("wrong.json", json.dumps(misspelt)))
        self.assertEqual(code, 2)
        self.one_error(err, "unknown strategy `outbax`", "fan_out, outbox, rate_limit", "did you mean `outbox`")

    def test_help_and_completion_know_the_commands(self):
        code, out, err = self.run_it("outbox", "--help")
        self.assertEqual(code, 0)
        for name in ("ls", "show", "retry", "drop", "export", "import", "stats", "purge", "drain"):
            self.assertRegex(out.decode(), rf"(?m)^  {name} ")
            code, help, err = self.run_it("outbox", name, "--help")
            self.assertEqual((code, err), (0, ""))
            self.assertIn("Usage: ceiba outbox " + name, help.decode())
        code, out, err = self.run_it("completion", "bash")
        self.assertIn("ceiba__subcmd__outbox__subcmd__purge", out.decode())
