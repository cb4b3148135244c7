"""A program that uses the whole interface, checked by mypy and run by the tests."""

from __future__ import annotations

from datetime import timedelta

import ceiba


def one_id_one_message(url: str) -> str:
    producer: str = ceiba.producer_open(url, "typed")
    consumer: str = ceiba.consumer_open(url, "typed")
    receipt: ceiba.Receipt = ceiba.producer_send(producer, b"hello", 0, timeout=10)
    token: int = ceiba.producer_submit(producer, "more", timedelta(0))
    tokens: range = ceiba.producer_submit_many(producer, [b"1", bytearray(b"2"), memoryview(b"3")])
    ended: dict[int, ceiba.Completion] = {}
    while len(ended) < 1 + len(tokens):
        for completion in ceiba.completions(timeout=5):
            ended[completion.token] = completion
    result: ceiba.Receipt = ended[token].result()
    bodies: list[bytes] = []
    while len(bodies) < 5:
        for delivery in ceiba.consumer_receive(consumer, max=10, timeout=5):
            bodies.append(delivery.data)
            ceiba.consumer_ack(consumer, delivery.code)
    ceiba.producer_close(producer)
    ceiba.consumer_close(consumer, timeout=1.5)
    return f"{receipt.provider} {result.stored} {len(bodies)}"


def classes(topic: str) -> int:
    config = {"provider": {"type": "memory", "topic": topic}}
    count = 0
    with ceiba.Producer(config) as producer, ceiba.Consumer(config) as consumer:
        outcomes: list[ceiba.Receipt | ceiba.Error] = producer.send_batch([ceiba.Message("a", tag="t"), b"b"])
        for outcome in outcomes:
            if isinstance(outcome, ceiba.Error):
                raise outcome
            count += outcome.attempts
        for delivery in consumer:
            attempt: int | None = delivery.attempt
            delivery.ack()
            if delivery.text == "b" and attempt is not None:
                break
    return count


def failures() -> str:
    try:
        ceiba.producer_send("nobody", b"x")
    except ceiba.Timeout as error:
        wait: float | None = error.retry_after
        return f"{wait}"
    except ceiba.Error as error:
        return f"{error.kind} {error.code} {error.outcome} {error.retryable}"
    raise AssertionError


if __name__ == "__main__":
    with ceiba.Broker() as broker:
        print(one_id_one_message(broker.url("typed")))
    print(classes("typed"))
    print(failures())
