"""`ceiba config check`, `ceiba completion`, help."""

import json
import subprocess

from program import SECRET, Program

GOOD = {"id": "a", "provider": {"type": "kapokmq", "url": "ws://127.0.0.1:1", "topic": "t", "secret_key": SECRET}}


class ConfigCheck(Program):
    def check(self, content, *more):
        path = self.write("config.json", content if isinstance(content, (bytes, str)) else json.dumps(content))
        return self.run_it("config", "check", path, *more)

    def test_good_ones(self):
        for content, said in ((GOOD, "1 client"), ({"clients": [GOOD, {**GOOD, "role": "consumer"}]}, "2 clients"),
                              ("kapokmq://:x@127.0.0.1:1/t?window=5&id=a", "1 client")):
            code, out, err = self.check(content)
            self.assertEqual((code, err), (0, ""))
            self.assertTrue(out.decode().rstrip().endswith(f"ok, {said}"), out)

    def test_a_client_of_a_file_needs_an_id(self):
        for content in ({"provider": GOOD["provider"]}, "memory://t", {**GOOD, "id": ""}):
            code, out, err = self.check(content)
            self.assertEqual((code, out), (2, b""), err)
            self.one_error(err, "`id` is missing or empty")

    def test_everything_that_is_wrong_is_named_with_its_path(self):
        wrong = json.loads(json.dumps({"clients": [GOOD, {**GOOD, "id": "b"}, {**GOOD, "id": "c"}, GOOD]}))
        wrong["clients"][1]["provider"]["windw"] = 3
        wrong["clients"][2]["deadline"] = 3
        code, out, err = self.check(wrong)
        self.assertEqual((code, out), (2, b""))
        lines = err.splitlines()
        self.assertEqual(len(lines), 3, err)
        for line, path, hint in zip(lines, ("clients[1].provider", "clients[2].deadline", "clients[3].id"),
                                    ("`window`", "unit", "`a`")):
            self.assertIn(path, line)
            self.assertIn(hint, line)
        self.assertNotIn(SECRET, err)

    def test_as_json(self):
        wrong = {**GOOD, "dedline": "2s"}
        code, out, err = self.check(wrong, "--json")
        self.assertEqual((code, err), (2, ""))
        result = json.loads(out)
        self.assertFalse(result["ok"])
        self.assertEqual([problem["path"] for problem in result["problems"]], ["dedline"])
        code, out, _ = self.check(GOOD, "--json")
        self.assertEqual((code, json.loads(out)), (0, {"ok": True, "clients": 1, "problems": []}))

    def test_what_is_no_config(self):
        for content in ("", "{", "[]", b"\xff\xfe", '{"secret_key": "hunter2'):
            code, out, err = self.check(content)
            self.assertEqual((code, out), (2, b""), err)
            self.assertEqual(len(err.splitlines()), 1, err)
            self.assertNotIn("hunter2", err)
        code, _, err = self.run_it("config", "check", self.folder / "none")
        self.assertEqual(code, 2)
        self.one_error(err, "none")

    def test_from_stdin(self):
        code, _, err = self.run_it("config", "check", "-", input=json.dumps(GOOD).encode())
        self.assertEqual(code, 0, err)


class Rest(Program):
    def test_completion_scripts(self):
        for shell in ("bash", "zsh", "fish", "elvish", "powershell"):
            code, out, err = self.run_it("completion", shell)
            self.assertEqual((code, err), (0, ""))
            for word in (b"broker", b"receive", b"--secret-file" if shell != "fish" else b"secret-file"):
                self.assertIn(word, out)
        script = self.run_it("completion", "bash")[1]
        subprocess.run(["bash", "-n"], input=script, check=True, timeout=60)
        self.assertEqual(self.run_it("completion", "tcsh")[0], 2)

    def test_help_lists_the_exit_codes_and_hides_the_environment(self):
        for arguments in (["--help"], ["broker", "--help"], ["send", "--help"], ["receive", "--help"],
                          ["config", "check", "--help"]):
            code, out, err = self.run_it(*arguments)
            self.assertEqual((code, err), (0, ""))
            self.assertIn("Exit codes", out.decode())
            self.assertNotIn(SECRET, out.decode())
        code, out, _ = self.run_it("--version")
        self.assertEqual(code, 0)
        self.assertRegex(out.decode(), r"^ceiba \d+\.\d+\.\d+\n$")

    def test_output_that_nobody_reads_is_no_failure(self):
        for arguments in (["--help"], ["completion", "bash"]):
            process = self.start(*arguments)
            process.stdout.close()
            self.assertEqual(process.wait(60), 0)
            self.assertEqual(process.stderr.read(), b"")
