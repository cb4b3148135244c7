"""A program that uses the whole interface, checked by mypy and run by the tests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

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


@ceiba.strategy(retry=3, timeout=5, rate_limit="100/s", circuit_breaker=9, retry_on=(OSError, ValueError))
def decorated(number: int, *, text: str = "x") -> str:
    return f"{number}{text}"


@ceiba.strategy(strategies=[{"type": "retry", "max_attempts": 2}], deadline=timedelta(seconds=9), id="typed-async")
async def decorated_coroutine(number: int) -> int:
    return number


def strategies() -> str:
    import asyncio

    def sender(message: ceiba.Message) -> str:
        return message.data.decode()

    async def coroutine(message: ceiba.Message) -> None:
        raise ValueError(message.fields["template"])

    ceiba.register_host("typed", sender)
    ceiba.register_host("typed-coroutine", coroutine)
    with ceiba.Producer({"provider": {"type": "callback", "name": "typed"}}) as producer:
        message_id: str | None = producer.send("id", template="t", args={"a": [1]}, recipients=["r"]).message_id
        state: dict[str, Any] = producer.status()
    config: dict[str, Any] = {
        "provider": {"type": "callback", "name": "typed-coroutine"},
        "strategies": [{"type": "retry", "max_attempts": 2}, {"type": "circuit_breaker", "consecutive": 9}],
    }
    with ceiba.Producer(config) as producer:
        set_to: dict[str, Any] = producer.control({"strategy": "circuit_breaker", "state": "closed"})
        try:
            producer.send("x", template="boom")
        except ceiba.Error as error:
            parts: tuple[ceiba.Part, ...] = error.parts
            why: ceiba.Error | None = parts[0].error
            ended = [f"{part.of} {part.name} {part.ok}" for part in parts]
    ceiba.unregister_host("typed")
    text: str = decorated(1, text="a")
    number: int = asyncio.run(decorated_coroutine(2))
    return f"{message_id} {state['sent']} {set_to['state']} {ended} {why} {text} {number}"


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
    print(strategies())
    print(failures())
