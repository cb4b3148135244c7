"""Short messages sent by the services' official SDKs to a local endpoint, at a time and with a nonce that are given,
and what they send recorded."""

import datetime
import http.server
import json
import os
import threading
import time
from unittest import mock
from urllib.parse import parse_qsl, urlsplit

ALIYUN_ANSWER = {"Code": "OK", "Message": "OK", "RequestId": "R", "BizId": "900619746936498440^0"}
TENCENT_ANSWER = {"Response": {"SendStatusSet": [], "RequestId": "R"}}

# What a connection adds, and what tells who the SDK is: none of it is part of the call.
OF_THE_CONNECTION = {"connection", "accept-encoding", "content-length", "transfer-encoding"}
OF_THE_SDK = {"x-tc-requestclient", "x-tc-traceid"}

# The environment of whoever runs the tests may name proxies.
NO_PROXIES = dict.fromkeys(("NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"), "")


class Endpoint:
    """A server that records requests and gives each the same answer."""

    def __init__(self, answer):
        self.requests = []
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length).decode()
                endpoint.requests.append(recorded(self, body))
                data = json.dumps(endpoint.answer).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.answer = answer
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = "127.0.0.1:%d" % self.server.server_address[1]
        self.url = "http://" + self.host
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def recorded(handler, body):
    target = urlsplit(handler.path)
    headers = {name.lower(): value for name, value in handler.headers.items()}
    left_out = OF_THE_CONNECTION | OF_THE_SDK
    return {
        "method": handler.command,
        "path": target.path,
        "query": dict(parse_qsl(target.query, keep_blank_values=True, strict_parsing=bool(target.query))),
        "headers": {name: value for name, value in sorted(headers.items()) if name not in left_out},
        "body": body,
    }


def aliyun(case, via):
    """Sends by alibabacloud_dysmsapi20170525, through a proxy at `via`: so the host can be any."""
    from alibabacloud_dysmsapi20170525 import models
    from alibabacloud_dysmsapi20170525.client import Client
    from alibabacloud_tea_openapi import models as openapi
    from alibabacloud_tea_openapi import utils_models
    from alibabacloud_tea_openapi.utils import Utils
    from darabonba.policy.retry import RetryOptions
    from darabonba.runtime import RuntimeOptions

    client = Client(
        utils_models.Config(
            access_key_id=case["key_id"],
            access_key_secret=case["key_secret"],
            security_token=case.get("security_token"),
            endpoint=case["host"],
            protocol="http",
            http_proxy=via,
            retry_options=RetryOptions(options={"retryable": False}),
            # It says where the SDK found the credentials; ours says what it is itself.
            global_parameters=utils_models.GlobalParameters(headers={"user-agent": case["user_agent"]}),
        )
    )
    model = client._credential.get_credential()
    model.provider_name = None
    client._credential = mock.Mock(get_credential=lambda: model)
    date = datetime.datetime.fromtimestamp(case["time"], datetime.timezone.utc)
    with (
        mock.patch.object(Utils, "get_timestamp", lambda: date.strftime("%Y-%m-%dT%H:%M:%SZ")),
        mock.patch.object(Utils, "get_nonce", lambda: case["nonce"]),
        mock.patch.dict(os.environ, NO_PROXIES),
    ):
        client.send_sms_with_options(models.SendSmsRequest(**case["sms"]), RuntimeOptions())


def tencent(case, via):
    """Sends by tencentcloud-sdk-python-sms, through a proxy at `via`."""
    from tencentcloud.common import abstract_client
    from tencentcloud.common.credential import Credential
    from tencentcloud.common.profile.client_profile import ClientProfile
    from tencentcloud.common.profile.http_profile import HttpProfile
    from tencentcloud.sms.v20210111 import models
    from tencentcloud.sms.v20210111.sms_client import SmsClient

    http = HttpProfile(protocol="http", endpoint=case["host"], reqTimeout=10)
    http.proxy = via
    profile = ClientProfile(signMethod="TC3-HMAC-SHA256", httpProfile=http, language=case["language"])
    client = SmsClient(Credential(case["secret_id"], case["secret_key"], case.get("token")), case["region"], profile)
    request = models.SendSmsRequest()
    for name, value in case["sms"].items():
        setattr(request, name, value)
    clock = mock.Mock(wraps=time, time=lambda: case["time"])
    with mock.patch.object(abstract_client, "time", clock), mock.patch.dict(os.environ, NO_PROXIES):
        client.SendSms(request)
