"""Drives the MNS front of `ceiba broker` with the official SDK: every operation that it has.

Runs in the environment of requirements-mns.txt: `python mns_sdk.py PROGRAM`, where PROGRAM is the program ceiba.
"""

import os
import signal
import subprocess
import sys
import warnings

warnings.simplefilter("ignore")

from mns.account import Account, AccountMeta
from mns.auth import Credentials
from mns.message_property import MessagePropertyValue, MessageSystemPropertyValue, PropertyType, SystemPropertyName
from mns.mns_exception import MNSServerException
from mns.mns_common import RequestInfo
from mns.queue import Message, QueueMeta
from mns.subscription import SubscriptionMeta
from mns.topic import Base64TopicMessage, DirectMailInfo, DirectSMSInfo, TopicMessage, TopicMeta


def equal(what, got, wanted):
    assert got == wanted, f"{what} is {got!r}, not {wanted!r}"


def fails(code, call, *arguments):
    try:
        call(*arguments)
    except MNSServerException as error:
        equal("the code", error.type, code)
        return error
    raise AssertionError(f"{code}: it did not fail")


def queues(account):
    queue = account.get_queue("q")
    url = queue.create(QueueMeta(vis_timeout=9, max_msg_size=4096, msg_ttl=3600, delay_sec=0, polling_wait_sec=1))
    assert url.endswith("/queues/q"), url
    fails("QueueAlreadyExist", queue.create, QueueMeta(vis_timeout=10))
    queue.set_attributes(QueueMeta(vis_timeout=30, logging_enabled=True))
    meta = queue.get_attributes()
    equal("the visibility", meta.visibility_timeout, 30)
    equal("the size", meta.maximum_message_size, 4096)
    equal("the log", meta.logging_enabled, True)
    equal("the name", meta.queue_name, "q")
    for name in ("p1", "p2"):
        account.get_queue(name).create(QueueMeta())
    page, marker = account.list_queue("p", 1)
    assert len(page) == 1 and page[0].endswith("/queues/p1"), page
    page, marker = account.list_queue("p", 1, marker)
    assert page[0].endswith("/queues/p2") and marker == "", (page, marker)
    account.get_queue("p1").delete()
    fails("QueueNotExist", account.get_queue("p1").get_attributes)


def messages(account):
    queue = account.get_queue("q")
    body = "a<b>&\"c'\t\n  d 你好 😀 ]]>"
    message = Message(body, priority=3)
    message.add_user_property("key", MessagePropertyValue(PropertyType.STRING, "value"))
    sent = queue.send_message(message)
    seen = queue.peek_message_with_str_body()
    equal("the look", (seen.message_body, seen.dequeue_count), (body, 0))
    got = queue.receive_message_with_str_body(3)
    equal("the body", got.message_body, body)
    equal("the id", (got.message_id, got.message_body_md5), (sent.message_id, sent.message_body_md5))
    equal("the priority", (got.priority, got.dequeue_count), (3, 1))
    equal("the property", got.get_user_properties()["key"].string_value, "value")
    changed = queue.change_message_visibility(got.receipt_handle, 100)
    fails("MessageNotExist", queue.delete_message, got.receipt_handle)
    queue.delete_message(changed.receipt_handle)
    fails("ReceiptHandleError", queue.delete_message, "nobody-gave-this")
    fails("MessageNotExist", queue.receive_message, 1)

    # Bodies as they are.
    queue.set_encoding(False)
    batch = queue.batch_send_message([Message("low", priority=16), Message("high", priority=1), Message("late", 100)])
    equal("the batch", len(batch), 3)
    queue.batch_peek_message(16)
    all_of_them = queue.batch_receive_message(16, 3)
    equal("the order", [one.message_body for one in all_of_them], ["high", "low"])
    handles = [one.receipt_handle for one in all_of_them]
    error = fails("ReceiptHandleError", queue.batch_delete_message, handles + ["nobody-gave-this"])
    equal("the failures", list(error.sub_errors), [
        {"ErrorCode": "ReceiptHandleError", "ErrorMessage": error.sub_errors[0]["ErrorMessage"],
         "ReceiptHandle": "nobody-gave-this"}
    ])
    meta = queue.get_attributes()
    equal("what is left", (meta.active_messages, meta.inactive_messages, meta.delay_messages), (0, 0, 1))
    fails("InvalidArgument", queue.batch_send_message, [Message("good", 100), Message("bad", priority=17)])


def properties_of(message):
    message.add_user_property("text", MessagePropertyValue.create_string("a<b>&木"))
    message.add_user_property("number", MessagePropertyValue.create_number(7))
    message.add_user_property("truth", MessagePropertyValue.create_boolean(True))
    message.add_user_property("bytes", MessagePropertyValue.create_binary(b"\x00\xff"))
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    message.add_system_property(SystemPropertyName.TRACEPARENT, MessageSystemPropertyValue.create_string(trace))
    message.add_system_property(SystemPropertyName.BAGGAGE, MessageSystemPropertyValue.create_string("a=b"))
    return message


def same_properties(what, got):
    wanted = properties_of(Message("x"))
    for own, all_of in (("own", Message.get_user_properties), ("system", Message.get_system_properties)):
        equal(
            f"{what}: the {own} properties",
            {name: (one.get_data_type(), one.get_raw_value()) for name, one in all_of(got).items()},
            {name: (one.get_data_type(), one.get_raw_value()) for name, one in all_of(wanted).items()},
        )


def what_messages_carry(account):
    queue = account.get_queue("carried")
    queue.create(QueueMeta(vis_timeout=30))
    request = RequestInfo("0123456789ABCDEF")
    sent = queue.send_message(properties_of(Message("hello 木", message_group_id="group <1>")), request)
    # The body as bytes and as text; those of a batch alike.
    equal("the look", queue.peek_message(request).message_body, "hello 木".encode())
    (seen,) = queue.batch_peek_message(16)
    equal("the looks", (seen.message_id, seen.message_body), (sent.message_id, "hello 木".encode()))
    (seen,) = queue.batch_peek_message_with_str_body(16)
    equal("the looks", (seen.message_body, seen.dequeue_count, seen.priority), ("hello 木", 0, 8))
    same_properties("the look", seen)
    got = queue.receive_message(1)
    equal("the body", (got.message_body, got.message_group_id), ("hello 木".encode(), "group <1>"))
    same_properties("the receive", got)
    changed = queue.change_message_visibility(got.receipt_handle, 1)
    assert int(changed.next_visible_time) > int(got.enqueue_time), changed
    again = queue.receive_message_with_str_body(5)
    equal("the second receive", (again.message_body, again.dequeue_count), ("hello 木", 2))
    equal("the first receive", again.first_dequeue_time, got.first_dequeue_time)
    queue.delete_message(again.receipt_handle, request)

    # In a batch each has its own; a delayed one comes back by the handle that its send gave.
    two = [properties_of(Message("first", priority=1, message_group_id="g")), Message("second", priority=2)]
    answered = queue.batch_send_message(two)
    equal("the groups", [one.message_group_id for one in answered], ["g", ""])
    late = queue.send_message(Message("late", 600))
    queue.delete_message(late.receipt_handle)
    equal("what is delayed", queue.get_attributes().delay_messages, 0)
    first, second = queue.batch_receive_message_with_str_body(16, 1)
    equal("the bodies", (first.message_body, second.message_body), ("first", "second"))
    equal("the groups", (first.message_group_id, second.message_group_id), ("g", ""))
    same_properties("the batch", first)
    equal("no properties", (second.get_user_properties(), second.get_system_properties()), ({}, {}))
    queue.batch_delete_message([first.receipt_handle, second.receipt_handle])
    fails("MessageNotExist", queue.batch_receive_message, 16, 1)
    fails("MessageNotExist", queue.batch_peek_message, 16)
    fails("MessageNotExist", queue.peek_message)
    fails("InvalidArgument", queue.batch_peek_message, 17)
    queue.delete()


def what_is_published(account):
    topic = account.get_topic("carried")
    topic.create(TopicMeta())
    queue = account.get_queue("published")
    queue.create(QueueMeta(polling_wait_sec=5))
    for name in ("s1", "s2"):
        one = account.get_subscription("carried", name)
        one.subscribe(SubscriptionMeta("acs:mns:here:1:queues/published", "BACKOFF_RETRY", "SIMPLIFIED", name))
    page, marker = topic.list_subscription("s", 1)
    assert len(page) == 1 and page[0].endswith("/s1"), page
    page, marker = topic.list_subscription("s", 1, marker)
    assert page[0].endswith("/s2") and marker == "", (page, marker)
    account.get_topic("carried-too").create(TopicMeta())
    page, marker = account.list_topic("carried", 1)
    assert len(page) == 1 and page[0].endswith("/carried"), page
    page, marker = account.list_topic("carried", 1, marker)
    assert page[0].endswith("/carried-too") and marker == "", (page, marker)
    account.get_topic("carried-too").delete()

    mail = DirectMailInfo("sender", "a <subject> 木", 1, 0, 0)
    single = DirectSMSInfo("sign", "SMS_1", True)
    single.add_receiver("13800000000")
    single.set_params({"code": "1&2"})
    several = DirectSMSInfo("sign", "SMS_2", False)
    several.add_receiver("13800000000", {"code": "1"})
    several.add_receiver("13900000000")
    for number, message in enumerate([
        TopicMessage("by mail 木", "s1", mail),
        TopicMessage("by SMS", "s1", None, single),
        TopicMessage("by both", "s2", mail, several, "group"),
        properties_of(TopicMessage("with properties", "s2")),
    ]):
        sent = topic.publish_message(message, RequestInfo(f"request-{number}"))
        assert sent.message_id and sent.message_body_md5, sent
        queue.set_encoding(False)
        got = queue.receive_message()
        equal("what was pushed", got.message_body, message.message_body)
        queue.delete_message(got.receipt_handle)
    topic.publish_message(Base64TopicMessage("in Base64 木", "s1"))
    queue.set_encoding(True)
    got = queue.receive_message_with_str_body()
    equal("what was pushed", got.message_body, "in Base64 木")
    queue.delete_message(got.receipt_handle)
    topic.delete()


class Rotating:
    """Keys that are others at each request, the token included."""

    def __init__(self):
        self.asked = 0

    def get_credentials(self):
        self.asked += 1
        return Credentials("key-id", "key-secret", f"token-{self.asked}/+=")


def tokens(address):
    # The front knows no tokens: who has the key gets in with any, which is part of no signature.
    account = Account(f"http://{address}", "key-id", "key-secret", "token/+=")
    account.get_queue("tokens").create(QueueMeta())
    wrong = Account(f"http://{address}", "key-id", "another", "token/+=")
    fails("SignatureDoesNotMatch", wrong.list_queue)
    wrong.set_client(f"http://{address}", "key-id", "key-secret", "")
    page, _ = wrong.list_queue("tokens")
    equal("the queues", len(page), 1)
    rotating = Rotating()
    account = Account(f"http://{address}", credentials_provider=rotating)
    account.get_queue("tokens").send_message(Message("x"))
    equal("the body", account.get_queue("tokens").receive_message_with_str_body(5).message_body, "x")
    assert rotating.asked >= 2, rotating.asked
    account.get_queue("tokens").delete()


def topics(account):
    topic = account.get_topic("t")
    url = topic.create(TopicMeta(2048, True))
    assert url.endswith("/topics/t"), url
    topic.set_attributes(TopicMeta(4096, False))
    meta = topic.get_attributes()
    equal("the topic", (meta.topic_name, meta.maximum_message_size, meta.logging_enabled), ("t", 4096, False))
    page, _ = account.list_topic()
    equal("the topics", len(page), 1)
    account.get_queue("pushed").create(QueueMeta())
    one = topic.get_subscription("one")
    url = one.subscribe(SubscriptionMeta("acs:mns:here:1:queues/pushed", "BACKOFF_RETRY", "SIMPLIFIED", "red"))
    assert url.endswith("/topics/t/subscriptions/one"), url
    one.set_attributes(SubscriptionMeta(notify_strategy="EXPONENTIAL_DECAY_RETRY"))
    meta = one.get_attributes()
    equal("the strategy", (meta.notify_strategy, meta.filter_tag), ("EXPONENTIAL_DECAY_RETRY", "red"))
    equal("the endpoint", meta.endpoint, "acs:mns:here:1:queues/pushed")
    page, marker = topic.list_subscription()
    assert len(page) == 1 and page[0].endswith("/subscriptions/one") and marker == "", (page, marker)
    topic.publish_message(TopicMessage("blue one", "blue"))
    sent = topic.publish_message(TopicMessage("red one 木", "red"))
    assert sent.message_id and sent.message_body_md5, sent
    pushed = account.get_queue("pushed")
    pushed.set_encoding(False)
    equal("what was pushed", pushed.receive_message(10).message_body, "red one 木")
    one.unsubscribe()
    fails("SubscriptionNotExist", one.get_attributes)
    topic.delete()
    fails("TopicNotExist", topic.get_attributes)


def main(program):
    environment = dict(os.environ, CEIBA_SECRET="test", CEIBA_MNS_KEY="key-id:key-secret")
    command = [program, "broker", "--listen", "127.0.0.1:0", "--mns", "127.0.0.1:0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as broker:
        try:
            broker.stdout.readline()
            address = broker.stdout.readline().removeprefix("mns on ").strip()
            account = Account(f"http://{address}", "key-id", "key-secret")
            queues(account)
            messages(account)
            what_messages_carry(account)
            topics(account)
            what_is_published(account)
            tokens(address)
            account.set_attributes(AccountMeta("logs"))
            equal("the bucket", account.get_attributes().logging_bucket, "logs")
            # The client spells it so.
            assert account.open_service().oder_id
            wrong = Account(f"http://{address}", "key-id", "another")
            fails("SignatureDoesNotMatch", wrong.get_queue("q").get_attributes)
        finally:
            broker.send_signal(signal.SIGTERM)
        equal("the end of the broker", broker.wait(10), 0)
    print("the SDK of MNS: all operations")


if __name__ == "__main__":
    main(sys.argv[1])
