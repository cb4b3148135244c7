"""A first program: send a message, receive it, acknowledge it.

    CEIBA_CONFIG=kapokmq://:SECRET@127.0.0.1:8011/greetings python first.py
"""

import os
import sys

import ceiba


def main() -> None:
    config = os.environ.get("CEIBA_CONFIG")
    if not config:
        sys.exit("name a config: CEIBA_CONFIG=kapokmq://:SECRET@HOST:PORT/TOPIC")
    with ceiba.Producer(config) as producer, ceiba.Consumer(config) as consumer:
        producer.send("hello from Python")
        deliveries = consumer.receive(timeout=5)
        if not deliveries:
            sys.exit("nothing came within 5 seconds")
        for delivery in deliveries:
            print(delivery.text)
            delivery.ack()


if __name__ == "__main__":
    try:
        main()
    except ceiba.Error as error:
        sys.exit(f"{error.kind}: {error}")
