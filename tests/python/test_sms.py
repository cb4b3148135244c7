"""Short messages beside the official SDKs: the same time and nonce, the same request.

The SDKs are in requirements-sms.txt and run in an environment of their own (CEIBA_SMS_PYTHON): see setup.sh.
"""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import subprocess
from typing import Any

import pytest
import sms_sdk

import ceiba

HERE = pathlib.Path(__file__).parent
PYTHON = os.environ.get("CEIBA_SMS_PYTHON") or str(HERE.parents[1] / "target" / "venv-sms" / "bin" / "python")


def of_the_sdks(code: str, given: Any) -> Any:
    """Runs code where the SDKs are; it reads JSON and prints JSON."""
    program = f"import json, sys\nimport sms_sdk, sms_vectors\ngiven = json.load(sys.stdin)\n{code}\njson.dump(result, sys.stdout)"
    environment = {**os.environ, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [PYTHON, "-W", "ignore", "-c", program],
        input=json.dumps(given), capture_output=True, text=True, env=environment, timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_recorded_requests_are_those_of_the_sdks() -> None:
    recorded = json.loads((HERE.parent / "vectors" / "sms.json").read_text())["cases"]
    assert len(recorded) >= 8
    assert of_the_sdks("result = sms_vectors.record()", None) == recorded


REPLAY = """
with sms_sdk.Endpoint(given["answer"]) as endpoint:
    getattr(sms_sdk, given["service"])(given["case"], endpoint.url)
(result,) = endpoint.requests
"""


def sent(id: str, provider: dict[str, Any], answer: Any, **fields: Any) -> dict[str, Any]:
    """The request that the producer of this section sends."""
    with sms_sdk.Endpoint(answer) as endpoint:
        ceiba.producer_open({"provider": {"type": "sms", "endpoint": endpoint.url, **provider}}, id)
        ceiba.producer_send(id, b"", timeout=10, **fields)
        ceiba.producer_close(id)
    (request,) = endpoint.requests
    return request


@pytest.mark.parametrize("token", [None, "token/with+signs=="])
def test_aliyun_equals_the_sdk(topic: str, token: str | None) -> None:
    provider = {"service": "aliyun", "access_key_id": "key-id", "access_key_secret": "key/secret", "sign": "阿里云 a*~"}
    if token:
        provider["security_token"] = token
    ours = sent(
        topic, provider, sms_sdk.ALIYUN_ANSWER, template="SMS_1", args={"code": "12 34", "name": "张三😀"},
        recipients=["+8613800000000", "+85251234567"], attributes={"out_id": "order/7"},
    )
    headers = ours["headers"]
    date = datetime.datetime.strptime(headers["x-acs-date"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc)
    assert abs(date.timestamp() - datetime.datetime.now().timestamp()) < 60
    case = {
        "host": headers["host"], "key_id": "key-id", "key_secret": "key/secret", "security_token": token,
        "time": int(date.timestamp()), "nonce": headers["x-acs-signature-nonce"], "user_agent": headers["user-agent"],
        "sms": {
            "phone_numbers": "13800000000,85251234567", "sign_name": "阿里云 a*~", "template_code": "SMS_1",
            "template_param": ours["query"]["TemplateParam"], "out_id": "order/7",
        },
    }
    assert json.loads(ours["query"]["TemplateParam"]) == {"code": "12 34", "name": "张三😀"}
    assert ours == of_the_sdks(REPLAY, {"service": "aliyun", "case": case, "answer": sms_sdk.ALIYUN_ANSWER})


@pytest.mark.parametrize("token", [None, "token/with+signs=="])
def test_tencent_equals_the_sdk(topic: str, token: str | None) -> None:
    provider = {"service": "tencent", "secret_id": "id", "secret_key": "secret/key", "app_id": "1400", "sign": "腾讯云"}
    if token:
        provider["token"] = token
    numbers = ["+8613800000000", "13800000001"]
    statuses = [{"PhoneNumber": number, "Code": "Ok", "SerialNo": "s"} for number in numbers]
    answer = {"Response": {"SendStatusSet": statuses, "RequestId": "R"}}
    ours = sent(
        topic, provider, answer, template="7", args=["12 34", "张三😀\t\"<>&"], recipients=numbers,
        attributes={"session_context": "order/7"},
    )
    headers = ours["headers"]
    time = int(headers["x-tc-timestamp"])
    assert abs(time - datetime.datetime.now().timestamp()) < 60
    case = {
        "host": headers["host"], "secret_id": "id", "secret_key": "secret/key", "token": token,
        "region": "ap-guangzhou", "language": "zh-CN", "time": time,
        "sms": {
            "PhoneNumberSet": numbers, "SmsSdkAppId": "1400", "TemplateId": "7", "SignName": "腾讯云",
            "TemplateParamSet": ["12 34", "张三😀\t\"<>&"], "SessionContext": "order/7",
        },
    }
    theirs = of_the_sdks(REPLAY, {"service": "tencent", "case": case, "answer": answer})
    # Who sends, and what it takes as an answer, is no part of the call and is not signed.
    for request in (ours, theirs):
        for name in ("user-agent", "accept"):
            request["headers"].pop(name, None)
    assert ours == theirs
