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
from mns.message_property import MessagePropertyValue, PropertyType
from mns.mns_exception import MNSServerException
from mns.queue import Message, QueueMeta
from mns.subscription import SubscriptionMeta
from mns.topic import TopicMessage, TopicMeta


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
            topics(account)
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
