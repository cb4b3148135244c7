"""Runs every program of this folder against a broker: the first programs, the main job over files of every kind, and
those for MNS (test_mns.py). Closes with one line that says how many passed."""

import json
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request
from pathlib import Path

import run
import test_mns

HUGE = 16 << 20


class First(unittest.TestCase):
    def test_each_language_sends_and_receives(self):
        with run.broker() as (address, environment):
            for language, name in (("c", "C"), ("go", "Go"), ("python", "Python")):
                with self.subTest(language=language):
                    program = run.command(language, "first")
                    config = run.config(address, f"first {language} 木")
                    self.assertEqual(run.run_program(program, config, environment), (0, f"hello from {name}\n"))
                    self.assertEqual(run.left_over(config, environment), 0)

    def test_each_language_says_what_is_wrong(self):
        for language in run.LANGUAGES:
            program = list(map(str, run.command(language, "first")))
            for config in ("", "nonsense", "kapokmq://:x@127.0.0.1:1/t?connect_timeout=200ms"):
                with self.subTest(language=language, config=config):
                    result = subprocess.run(program, env={"CEIBA_CONFIG": config}, capture_output=True, timeout=60)
                    self.assertIn(result.returncode, (1, 2))
                    self.assertEqual(result.stdout, b"")
                    self.assertTrue(result.stderr.strip())


class Job(unittest.TestCase):
    """Each file with the exit code, and the counts that every language must give."""

    def job(self, content, code, provider="kapokmq", **counts):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a file"
            path.write_bytes(content)
            command = [sys.executable, run.HERE / "run.py", path, "--json", "--provider", provider]
            result = subprocess.run(command, capture_output=True, timeout=3 * run.JOB_SECONDS)
        errors = result.stderr.decode()
        self.assertEqual(result.returncode, code, errors)
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        self.assertEqual([row["language"] for row in rows], list(run.LANGUAGES))
        expected = {"lost": 0, "duplicates": 0, "unexpected": 0, "unknown": 0, "refused": 0, "left": 0, **counts}
        for row in rows:
            self.assertEqual({name: row[name] for name in expected}, expected, row)
        return errors

    def test_lines_of_every_kind(self):
        content = "a\n\n\nthe same\nthe same\ntwo\r\n\t\\ \" <&>\u2028 木\nlast".encode()
        for provider in run.PROVIDERS:
            with self.subTest(provider=provider):
                self.job(content, 0, provider, sent=8, acknowledged=8, received=8)

    def test_an_empty_file(self):
        self.job(b"", 0, sent=0, acknowledged=0, received=0)

    def test_one_empty_line(self):
        self.job(b"\n", 0, sent=1, acknowledged=1, received=1)

    def test_a_huge_line_between_small_ones(self):
        self.job(b"a\n" + b"x" * HUGE + b"\nb\n", 0, sent=3, acknowledged=3, received=3)

    def test_lines_that_are_not_utf8_are_refused_by_name_and_fail_the_job(self):
        errors = self.job(b"good\n\xff\xfe\n\xc3\nalso good", 1, sent=4, acknowledged=2, received=2, refused=2)
        for line in (2, 3):
            self.assertEqual(errors.count(f"line {line} was refused: "), 3, errors)
        self.assertEqual(errors.count("unsupported"), 6, errors)

    def test_more_lines_than_the_window(self):
        self.job(b"".join(b"%d\n" % (number % 777) for number in range(30_000)), 0, sent=30_000, received=30_000)

    def test_a_file_that_is_not_there(self):
        result = subprocess.run([sys.executable, run.HERE / "run.py", "/nonexistent"], capture_output=True, timeout=60)
        self.assertEqual((result.returncode, result.stdout), (2, b""))
        self.assertIn(b"/nonexistent", result.stderr)

    def test_the_table(self):
        result = subprocess.run([sys.executable, run.HERE / "run.py"], capture_output=True, timeout=3 * run.JOB_SECONDS)
        self.assertEqual(result.returncode, 0, result.stderr)
        lines = result.stdout.decode().splitlines()
        self.assertEqual(lines[1].split()[:3], ["language", "sent", "acknowledged"])
        for line, language in zip(lines[2:5], run.LANGUAGES):
            self.assertEqual(line.split()[:6], [language, "34,924", "34,924", "34,924", "0", "0"])


class Counting(unittest.TestCase):
    """The counts tell when something is wrong: others at the same topic."""

    def start(self, language, path, address, environment, topic):
        environment = {**environment, "CEIBA_CONFIG": run.config(address, topic)}
        command = [*map(str, run.command(language, "job")), str(path)]
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        self.addCleanup(self.end, process)
        return process

    def end(self, process):
        if process.poll() is None:
            process.kill()
        process.communicate()

    def counts(self, process, code=1):
        out, err = process.communicate(timeout=run.JOB_SECONDS)
        self.assertEqual(process.returncode, code, err)
        return json.loads(out)

    def file(self, content):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "file"
        path.write_bytes(content)
        return path

    def wait_for_messages(self, address, environment):
        """Returns as soon as the broker has had a message."""
        request = urllib.request.Request(f"http://{address}/Console/CountMessage", method="POST",
                                         headers={"secretKey": environment["CEIBA_SECRET"]})
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with urllib.request.urlopen(request, timeout=10) as reply:
                if json.load(reply)["data"]["all"] > 0:
                    return
            time.sleep(0.01)
        self.fail("the broker had no message within 60 s")

    def send(self, content, address, environment, topic):
        subprocess.run([run.PROGRAM, "send", run.config(address, topic)], input=content, env=environment, check=True,
                       stderr=subprocess.PIPE, timeout=60)

    def test_what_came_twice_and_what_nobody_sent_is_told(self):
        path = self.file(b"a\nb\n")
        with run.broker() as (address, environment):
            for language in run.LANGUAGES:
                with self.subTest(language=language):
                    self.send(b"a\nstranger\n", address, environment, language)
                    counts = self.counts(self.start(language, path, address, environment, language))
                    told = [counts[name] for name in ("sent", "received", "lost", "duplicates", "unexpected")]
                    self.assertEqual(told, [2, 4, 0, 1, 1])

    def test_what_another_consumer_took_is_lost(self):
        path = self.file(b"".join(b"%d\n" % number for number in range(5000)))
        with run.broker() as (address, environment):
            thieves, jobs = [], []
            for language in run.LANGUAGES:
                thief = subprocess.Popen([run.PROGRAM, "receive", run.config(address, language)], env=environment,
                                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
                thieves.append(thief)
                self.addCleanup(self.end, thief)
                # It is connected once it has had a message.
                self.send(b"bait\n", address, environment, language)
                self.assertEqual(thief.stdout.readline(), b"bait\n")
            for language in run.LANGUAGES:
                jobs.append(self.start(language, path, address, environment, language))
            for thief, job in zip(thieves, jobs):
                drain = threading.Thread(target=thief.stdout.read)
                drain.start()
                counts = self.counts(job)
                thief.terminate()
                drain.join()
                self.assertEqual((counts["sent"], counts["acknowledged"]), (5000, 5000), counts)
                self.assertGreater(counts["lost"], 0)
                self.assertEqual(counts["lost"] + counts["received"], 5000, counts)

    def test_a_broker_that_goes_away_ends_each_program_and_no_line_is_forgotten(self):
        path = self.file(b"".join(b"%d\n" % number for number in range(1_000_000)))
        for language in run.LANGUAGES:
            with self.subTest(language=language):
                with run.broker() as (address, environment):
                    # Shorter than the default, to test sooner: the programs take any config.
                    config = {**json.loads(run.config(address, language)), "deadline": "2s"}
                    process = subprocess.Popen([*map(str, run.command(language, "job")), str(path)],
                                               env={**environment, "CEIBA_CONFIG": json.dumps(config)},
                                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                    self.addCleanup(self.end, process)
                    self.wait_for_messages(address, environment)
                    self.assertIsNone(process.poll())
                counts = self.counts(process)
                self.assertLess(counts["sent"], counts["lines"])
                ended = counts["acknowledged"] + counts["refused"] + counts["unknown"]
                self.assertEqual(ended, counts["sent"], counts)


def main():
    run.check_tools(run.LANGUAGES)
    load = unittest.defaultTestLoader.loadTestsFromModule
    suite = unittest.TestSuite([load(sys.modules[__name__]), load(test_mns)])
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    failed = len(result.failures) + len(result.errors)
    print(f"examples: {result.testsRun - failed} passed, {failed} failed")
    return 0 if result.wasSuccessful() and result.testsRun > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
