"""`ceiba send` of one message: a mail, a text message, a robot, a webhook."""

import base64
import email
import email.policy
import hmac
import http.server
import json
import socketserver
import ssl
import subprocess
import threading
import urllib.parse

from program import Program


CERTIFICATE = """
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
CN = localhost
[extensions]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:localhost
"""


class Mailbox(socketserver.ThreadingTCPServer):
    """Takes mails, without a login unless one is given; refuses recipients that begin with `no`."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, login=None, context=None):
        self.login = login
        self.context = context
        super().__init__(("127.0.0.1", 0), Dialog)
        self.mails = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class Dialog(socketserver.StreamRequestHandler):
    def setup(self):
        if self.server.context:
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def log_in(self, command):
        given = base64.b64decode(command.split()[-1]).decode().split("\0")[1:]
        if given == list(self.server.login):
            self.say("235 welcome")
            return True
        # A careless server repeats what it was told.
        self.say(f"535 5.7.8 wrong: {' '.join(given)}")
        return False

    def say(self, line):
        self.wfile.write(line.encode() + b"\r\n")

    def handle(self):
        self.say("220 mail.example ready")
        recipients = []
        logged_in = False
        while line := self.rfile.readline():
            command = line.decode().strip()
            verb = command[:4].upper()
            if verb == "EHLO":
                self.say("250-mail.example")
                if self.server.login:
                    self.say("250-AUTH PLAIN")
                self.say("250 8BITMIME")
            elif verb == "AUTH":
                logged_in = self.log_in(command)
            elif self.server.login and not logged_in and verb != "QUIT":
                self.say("530 5.7.0 log in first")
            elif verb == "RCPT":
                refused = "<no" in command
                if not refused:
                    recipients.append(command.partition("<")[2].partition(">")[0])
                self.say("550 5.1.1 nobody of that name" if refused else "250 ok")
            elif verb == "DATA":
                self.say("354 go on")
                lines = []
                while (line := self.rfile.readline()) not in (b".\r\n", b""):
                    lines.append(line[1:] if line.startswith(b"..") else line)
                mail = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
                self.server.mails.append((recipients, mail))
                recipients = []
                self.say("250 taken")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 ok")


class Service(http.server.ThreadingHTTPServer):
    """Notes requests and answers with one text."""

    daemon_threads = True

    def __init__(self, answer, context=None):
        self.context = context
        super().__init__(("127.0.0.1", 0), Requests)
        self.answer = json.dumps(answer).encode()
        self.requests = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class Requests(http.server.BaseHTTPRequestHandler):
    def setup(self):
        if self.server.context:
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((self.path, dict(self.headers), body))
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *_):
        pass


class Notices(Program):
    def server(self, server):
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server

    def mailbox(self):
        server = self.server(Mailbox())
        return server, f"smtp://127.0.0.1:{server.server_address[1]}?tls=none&from=shop@a.example"

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def test_the_whole_input_is_one_mail(self):
        server, url = self.mailbox()
        body = "Dear all,\n\n.\nyours 木\n"
        code, out, err = self.run_it(
            "send", url, "--to", "a@b.example,c@d.example", "--subject", "Order 木", input=body.encode()
        )
        self.assertEqual((code, out), (0, b""), err)
        self.assertTrue(err.startswith("sent"), err)
        [(recipients, mail)] = server.mails
        self.assertEqual(recipients, ["a@b.example", "c@d.example"])
        self.assertEqual((mail["Subject"], mail["From"]), ("Order 木", "shop@a.example"))
        self.assertEqual(mail.get_content().replace("\r\n", "\n").rstrip("\n"), body.rstrip("\n"))

    def test_a_template_of_a_file(self):
        server, url = self.mailbox()
        page = self.write("hello.html", "<p>{{ name }} owes {{ sum }}</p>")
        arguments = ["--to", "a@b.example", "--template", f"@{page}", "--arg", "name=<b>", "--args", '{"sum": 3}']
        # A stdin that stays open is not waited for.
        process = self.start("send", url, *arguments, "--subject", "s", stdin=-1)
        out, err = process.stdout.read(), process.stderr.read()
        self.assertEqual((process.wait(60), out), (0, b""), err)
        [(_, mail)] = server.mails
        self.assertEqual(mail.get_content_type(), "text/html")
        self.assertEqual(mail.get_content().strip(), "<p>&lt;b&gt; owes 3</p>")

    def test_a_missing_value_is_named_and_nothing_is_sent(self):
        server, url = self.mailbox()
        page = self.write("hello.txt", "first\n{{ name }}")
        code, _, err = self.run_it("send", url, "--to", "a@b.example", "--template", f"@{page}", "--arg", "nam=x")
        self.assertEqual(code, 2)
        self.assertIn("line 2", err)
        self.assertIn("name", err)
        self.assertEqual(server.mails, [])

    def test_each_recipient_that_was_refused_is_named(self):
        server, url = self.mailbox()
        arguments = ("send", url, "--to", "a@b.example", "--to", "no@b.example", "--subject", "x")
        code, _, err = self.run_it(*arguments, input=b"x")
        self.assertEqual(code, 1)
        self.assertIn("error: partial", err)
        self.assertIn("no@b.example", err)
        self.assertEqual(server.mails[0][0], ["a@b.example"])
        code, _, err = self.run_it(*arguments, "--json", input=b"x")
        kinds = [json.loads(line)["error"]["kind"] for line in err.splitlines()]
        self.assertEqual((code, kinds[0], len(kinds)), (1, "partial", 2))

    def test_bad_input_is_named(self):
        server, url = self.mailbox()
        for arguments, words in [
            (("--subject", "x"), "recipient"),
            (("--to", "nobody", "--subject", "x"), "nobody"),
            (("--to", "a@b.example", "--subject", "x\r\nBcc: e@f.example"), "subject"),
            (("--to", "a@b.example", "--arg", "name"), "name=value"),
            (("--to", "a@b.example", "--arg", "a=1", "--arg", "a=2"), "`a`"),
            (("--to", "a@b.example", "--args", "{"), "--args"),
            (("--to", "a@b.example", "--template", "@/nowhere/it"), "/nowhere/it"),
            (("--to", "a@b.example", "--template", "welcome"), "welcome"),
        ]:
            code, out, err = self.run_it("send", url, *arguments, input=b"x")
            self.assertIn(code, (1, 2), err)
            self.assertEqual((out, err.count("\n")), (b"", 1), err)
            self.assertIn(words, err)
        self.assertEqual(server.mails, [])

    def test_a_password_comes_from_outside_and_is_not_shown(self):
        _, url = self.mailbox()
        url = url.replace("smtp://", "smtp://user@")
        code, _, err = self.run_it("send", url, "--to", "a@b.example", input=b"x", secret=None)
        self.assertEqual(code, 2)
        self.assertIn("no secret", err)
        # This server has no login: the password is not said to it, and the error does not show it.
        code, _, err = self.run_it("send", url, "--to", "a@b.example", input=b"x", secret="hunter2")
        self.assertNotEqual(code, 0)
        self.assertNotIn("hunter2", err)

    def test_a_login_and_one_that_is_refused(self):
        server = self.server(Mailbox(login=("user", "s3cret")))
        url = f"smtp://user@127.0.0.1:{server.server_address[1]}?from=a@b.example&tls=none"
        send = ("send", url, "--to", "a@b.example")
        code, _, err = self.run_it(*send, input=b"one", secret="s3cret")
        self.assertEqual(code, 0, err)
        code, _, err = self.run_it(*send, "--secret-file", self.write("right", "s3cret\n"), input=b"two", secret=None)
        self.assertEqual(code, 0, err)
        named = url + "&secret_file=" + urllib.parse.quote(str(self.write("named", "s3cret")), safe="")
        code, _, err = self.run_it("send", named, "--to", "a@b.example", input=b"three", secret=None)
        self.assertEqual(code, 0, err)
        self.assertEqual([mail.get_content().strip() for _, mail in server.mails], ["one", "two", "three"])
        for extra in (("--json",), ()):
            code, out, err = self.run_it(*send, *extra, input=b"x", secret="hunter2")
            self.assertNotEqual(code, 0)
            self.assertNotIn("hunter2", err + out.decode())
            self.assertNotIn(base64.b64encode(b"\0user\0hunter2").decode(), err + out.decode())
        self.assertIn("authentication", err)
        self.assertEqual(len(server.mails), 3)

    def test_a_webhook_takes_the_input_as_it_is(self):
        server = self.server(Service({"ok": True}))
        url = f"http://127.0.0.1:{server.server_address[1]}/hook?key=1"
        code, _, err = self.run_it("send", url, "--whole", input=b"first\nsecond\n")
        self.assertEqual(code, 0, err)
        [(path, _, body)] = server.requests
        self.assertEqual((path, body), ("/hook?key=1", b"first\nsecond\n"))

    def test_lines_are_messages_of_their_own_without_such_an_argument(self):
        server = self.server(Service({"ok": True}))
        url = f"http://127.0.0.1:{server.server_address[1]}/hook"
        code, _, err = self.run_it("send", url, input=b"first\nsecond\n")
        self.assertEqual(code, 0, err)
        self.assertEqual(sorted(body for _, _, body in server.requests), [b"first", b"second"])

    def test_a_text_message(self):
        server = self.server(Service({"Code": "OK", "Message": "OK", "BizId": "7^0", "RequestId": "r"}))
        endpoint = urllib.parse.quote(f"http://127.0.0.1:{server.server_address[1]}", safe="")
        url = f"sms+aliyun://KEY@dysmsapi.aliyuncs.com/Shop?endpoint={endpoint}"
        arguments = ("--to", "13800000000", "--template", "SMS_1", "--arg", "code=1234", "--json")
        code, out, err = self.run_it("send", url, *arguments, secret="s3cret")
        self.assertEqual(code, 0, err)
        self.assertEqual(json.loads(out)["sent"], 1)
        [(path, headers, body)] = server.requests
        told = path + body.decode() + json.dumps(headers)
        self.assertNotIn("s3cret", told)
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(path).query + "&" + body.decode()))
        self.assertEqual((query["PhoneNumbers"], query["TemplateCode"]), ("13800000000", "SMS_1"))
        self.assertEqual(json.loads(query["TemplateParam"]), {"code": "1234"})

    def test_a_text_message_by_the_other_service(self):
        status = {"SerialNo": "s", "PhoneNumber": "+8613800000000", "Code": "Ok"}
        server = self.server(Service({"Response": {"SendStatusSet": [status]}}))
        endpoint = urllib.parse.quote(f"http://127.0.0.1:{server.server_address[1]}", safe="")
        url = f"sms+tencent://ID@sms.tencentcloudapi.com/1400/Shop?endpoint={endpoint}"
        arguments = ("--to", "13800000000", "--template", "7", "--args", '["1234"]')
        code, _, err = self.run_it("send", url, *arguments, secret="s3cret")
        self.assertEqual(code, 0, err)
        [(_, headers, body)] = server.requests
        self.assertNotIn("s3cret", body.decode() + json.dumps(headers))
        told = json.loads(body)
        self.assertEqual((told["TemplateId"], told["SmsSdkAppId"], told["SignName"]), ("7", "1400", "Shop"))
        self.assertEqual(told["TemplateParamSet"], ["1234"])

    def test_addresses_that_are_encrypted(self):
        key, certificate = self.folder / "key.pem", self.folder / "cert.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
             "-config", self.write("openssl.cnf", CERTIFICATE), "-keyout", key, "-out", certificate],
            check=True, capture_output=True, timeout=60)  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        trusted = "ca_file=" + urllib.parse.quote(str(certificate), safe="")

        hook = Service({"ok": True}, context=context)
        self.server(hook)
        port = hook.server_address[1]
        code, _, err = self.run_it("send", f"https://localhost:{port}/hook#{trusted}", "--whole", input=b"x")
        self.assertEqual((code, [body for _, _, body in hook.requests]), (0, [b"x"]), err)

        robot = Service({"errcode": 0}, context=context)
        self.server(robot)
        port = robot.server_address[1]
        for url, secret in [
            (f"dingtalk://localhost:{port}?{trusted}", "tok3n:s3cret"),
            (f"dingtalk://tok3n@localhost:{port}?{trusted}", "s3cret"),
        ]:
            code, _, err = self.run_it("send", url, "--whole", input=b"disk full", secret=secret)
            self.assertEqual(code, 0, err)
            path, _, body = robot.requests[-1]
            query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(path).query))
            self.assertEqual(query["access_token"], "tok3n")
            said = f"{query['timestamp']}\ns3cret".encode()
            sign = base64.b64encode(hmac.digest(b"s3cret", said, "sha256")).decode()
            self.assertEqual(query["sign"], sign)
            self.assertEqual(json.loads(body)["text"]["content"], "disk full")
        code, _, err = self.run_it("send", f"dingtalk://localhost:{port}?{trusted}", "--whole", input=b"x", secret=None)
        self.assertEqual(code, 2)
        self.assertIn("TOKEN:SECRET", err)

        mails = self.server(Mailbox(login=("user", "s3cret"), context=context))
        url = f"smtps://user@localhost:{mails.server_address[1]}?from=a@b.example&{trusted}"
        code, _, err = self.run_it("send", url, "--to", "a@b.example", input=b"x", secret="s3cret")
        self.assertEqual((code, len(mails.mails)), (0, 1), err)

    def test_a_robot(self):
        server = self.server(Service({"errcode": 0, "errmsg": "ok"}))
        address = f"http://127.0.0.1:{server.server_address[1]}/robot/send"
        config = json.dumps({"provider": {"type": "dingtalk", "url": address, "access_token": "t"}})
        code, _, err = self.run_it("send", config, "--whole", input="Dienst 木 ist fort".encode())
        self.assertEqual(code, 0, err)
        [(path, _, body)] = server.requests
        self.assertTrue(path.startswith("/robot/send"), path)
        self.assertEqual(json.loads(body)["text"]["content"], "Dienst 木 ist fort")
