"""The cases of tests/vectors/sms.json, recorded from the official SDKs. As a program it writes the file anew."""

import json
import pathlib

import sms_sdk

FILE = pathlib.Path(__file__).parents[1] / "vectors" / "sms.json"
NONCE = "6f31966c0b5e6f3163737b30c1955396"
LONG = [f"+86138{number:08}" for number in range(200)]

ALIYUN = [
    {"name": "one number", "sms": {"phone_numbers": "13800000000", "sign_name": "ceiba", "template_code": "SMS_1"}},
    {
        "name": "parameters, and what a query has to escape",
        "host": "127.0.0.1:18080",
        "sms": {
            "phone_numbers": "13800000000,85251234567",
            "sign_name": "\u963f\u91cc\u4e91 a*~-_.+%&=/",
            "template_code": "SMS_1234567",
            "template_param": '{"code":"12 34","name":"\u5f20\u4e09\U0001f600"}',
            "out_id": "order/7",
            "sms_up_extend_code": "99",
        },
    },
    {
        "name": "temporary credentials, on a leap day",
        "key_secret": "a secret/with+signs=",
        "security_token": "token/with+signs==",
        "time": 1709251199,
        "sms": {"phone_numbers": "13800000000", "sign_name": "s", "template_code": "SMS_1", "template_param": "{}"},
    },
    {
        "name": "many numbers",
        "sms": {
            "phone_numbers": ",".join(number[3:] for number in LONG),
            "sign_name": "s",
            "template_code": "SMS_1",
        },
    },
]

TENCENT = [
    {"name": "one number", "sms": {"PhoneNumberSet": ["+8613800000000"], "SmsSdkAppId": "1400006666", "TemplateId": "1"}},
    {
        "name": "every parameter, and what JSON has to escape",
        "host": "127.0.0.1:18080",
        "region": "ap-beijing",
        "language": "en-US",
        "sms": {
            "PhoneNumberSet": ["+85251234567", "+12025550123"],
            "SmsSdkAppId": "1400006666",
            "TemplateId": "1234567",
            "SignName": '\u817e\u8baf\u4e91 "a"\\/',
            "TemplateParamSet": ["12 34", "\u5f20\u4e09\U0001f600", "\t\r\n\b\f\u0001\u007f\u0080\u2028<>&'"],
            "ExtendCode": "7",
            "SessionContext": "order/7",
            "SenderId": "Q",
        },
    },
    {
        "name": "temporary credentials, on a leap day",
        "secret_key": "a secret/with+signs=",
        "token": "token/with+signs==",
        "time": 1709251199,
        "sms": {"PhoneNumberSet": ["+8613800000000"], "SmsSdkAppId": "1", "TemplateId": "1", "SignName": "s",
                "TemplateParamSet": []},
    },
    {
        "name": "many numbers",
        "sms": {"PhoneNumberSet": LONG, "SmsSdkAppId": "1", "TemplateId": "1", "SignName": "s"},
    },
]


def whole(case, service):
    """The case with what is the same in most."""
    host = {"aliyun": "dysmsapi.test.example", "tencent": "sms.test.example"}[service]
    case = {"service": service, "host": host, "time": 1700000000, **case}
    if service == "aliyun":
        return {"nonce": NONCE, "user_agent": "ceiba/0", "key_id": "key-id", "key_secret": "key-secret", **case}
    return {"region": "ap-guangzhou", "language": "zh-CN", "secret_id": "secret-id", "secret_key": "secret-key", **case}


def record():
    """Every case, with the request that the SDK sends."""
    recorded = []
    for service, cases, send, answer in (
        ("aliyun", ALIYUN, sms_sdk.aliyun, sms_sdk.ALIYUN_ANSWER),
        ("tencent", TENCENT, sms_sdk.tencent, sms_sdk.TENCENT_ANSWER),
    ):
        for case in cases:
            case = whole(case, service)
            with sms_sdk.Endpoint(answer) as endpoint:
                send(case, endpoint.url)
            (request,) = endpoint.requests
            recorded.append({**case, "request": request})
    return recorded


if __name__ == "__main__":
    FILE.write_text(json.dumps({"cases": record()}, indent=1) + "\n")
