"""The data folder: what was sent outlives the broker, and damage is named and repaired."""

import json
import signal

from program import Program


class Folder(Program):
    def serve(self):
        broker = self.start("broker", "--listen", "127.0.0.1:0", "--data", self.folder / "data")
        return broker, f"kapokmq://{self.line(broker).decode().split()[-1]}/t"

    def filled(self, ends_by):
        broker, url = self.serve()
        lines = b"".join(b"line %d\n" % number for number in range(500))
        code, out, err = self.run_it("send", url, "--json", input=lines)
        self.assertEqual((code, json.loads(out)["sent"]), (0, 500), err)
        broker.send_signal(ends_by)
        broker.wait(60)
        return lines

    def test_what_was_sent_outlives_a_stop_and_a_kill(self):
        for ends_by in (signal.SIGTERM, signal.SIGKILL):
            lines = self.filled(ends_by)
            broker, url = self.serve()
            code, out, err = self.run_it("receive", url, "--count", "500")
            self.assertEqual((code, out), (0, lines), err)
            self.stop(broker)

    def test_damage_is_named_and_repaired(self):
        self.filled(signal.SIGTERM)
        data = self.folder / "data"
        code, out, err = self.run_it("broker", "verify", data)
        self.assertEqual(code, 0, err)
        self.assertIn(b"sound", out)
        log = next(path for path in sorted(data.glob("*.log")) if b"line 250" in path.read_bytes())
        content = bytearray(log.read_bytes())
        content[content.index(b"line 250") + 5] ^= 1
        log.write_bytes(content)

        code, out, _ = self.run_it("broker", "verify", data, "--json")
        found = json.loads(out)
        self.assertEqual((code, found["sound"]), (1, False))
        self.assertEqual([file["name"] for file in found["files"] if file["damage"]], [log.name])
        code, _, err = self.run_it("broker", "--listen", "127.0.0.1:0", "--data", data)
        self.assertEqual(code, 3, err)
        self.assertIn("ceiba broker repair", err)
        self.assertIn(log.name, err)

        code, out, err = self.run_it("broker", "repair", data)
        self.assertEqual(code, 0, err)
        self.assertIn(b"quarantine", out)
        self.assertTrue(any((data / "quarantine").iterdir()))
        self.assertEqual(self.run_it("broker", "verify", data)[0], 0)
        broker, url = self.serve()
        code, out, err = self.run_it("receive", url, "--count", "499")
        self.assertEqual((code, len(out.splitlines())), (0, 499), err)
        self.assertNotIn(b"line 250\n", out)
        self.stop(broker)

    def test_folders_in_use_and_folders_that_are_none(self):
        self.serve()
        code, _, err = self.run_it("broker", "verify", self.folder / "data")
        self.assertEqual(code, 1, err)
        self.one_error(err, "in_use")
        code, _, err = self.run_it("broker", "repair", self.folder / "nowhere")
        self.assertEqual(code, 2, err)
        self.one_error(err, "is no folder")
        self.assertFalse((self.folder / "nowhere").exists())
