"""The class `MnsAdmin`: queues, topics and subscriptions of MNS."""

from __future__ import annotations

from . import _ceiba

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta
    from typing import Any, Literal

    Time = float | timedelta | None
    Config = dict[str, Any] | str
    Strategy = Literal["BACKOFF_RETRY", "EXPONENTIAL_DECAY_RETRY"]
    Format = Literal["XML", "SIMPLIFIED", "JSON"]


class MnsAdmin:
    """Makes, changes, lists and deletes queues, topics and subscriptions of an MNS account.

    `config` is that of a producer or consumer, a dict or a URL; a queue or topic that it names does not matter:
    `"mns://KEY_ID@HOST:PORT?secret_env=NAME"` is enough. `timeout` is for each call, 30 seconds unless set. What is
    told is a dict of the service's names in small letters, as in `visibility_timeout`, with moments in seconds since
    1970; new keys may come. Attributes of times are whole seconds, those of sizes bytes. Every call may be made from
    any thread, connects and waits. MNS cannot empty a queue: delete it and make it again.
    """

    def __init__(self, config: Config, *, timeout: Time = None) -> None:
        if not isinstance(config, (dict, str)):
            raise TypeError(f"a config is a dict or a URL, not {type(config).__name__}")
        self._config = dict(config) if isinstance(config, dict) else config
        self._timeout = timeout

    def __repr__(self) -> str:
        # The config holds a secret.
        return "<ceiba.MnsAdmin>"

    def run(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carries out a command as it is: `{"get_queue": {"queue": "orders"}}`. The other methods make them."""
        return _ceiba._mns_admin(self._config, command, self._timeout)

    def create_queue(
        self,
        queue: str,
        *,
        delay_seconds: int | None = None,
        maximum_message_size: int | None = None,
        message_retention_period: int | None = None,
        visibility_timeout: int | None = None,
        polling_wait_seconds: int | None = None,
        logging_enabled: bool | None = None,
    ) -> bool:
        """Makes a queue; `False` where there is the same already, `InvalidArgument` where it has other attributes."""
        attributes = _given(
            delay_seconds=delay_seconds,
            maximum_message_size=maximum_message_size,
            message_retention_period=message_retention_period,
            visibility_timeout=visibility_timeout,
            polling_wait_seconds=polling_wait_seconds,
            logging_enabled=logging_enabled,
        )
        return bool(self.run({"create_queue": {"queue": queue, "attributes": attributes}})["created"])

    def set_queue(
        self,
        queue: str,
        *,
        delay_seconds: int | None = None,
        maximum_message_size: int | None = None,
        message_retention_period: int | None = None,
        visibility_timeout: int | None = None,
        polling_wait_seconds: int | None = None,
        logging_enabled: bool | None = None,
    ) -> None:
        """Changes attributes of a queue; those left out stay."""
        attributes = _given(
            delay_seconds=delay_seconds,
            maximum_message_size=maximum_message_size,
            message_retention_period=message_retention_period,
            visibility_timeout=visibility_timeout,
            polling_wait_seconds=polling_wait_seconds,
            logging_enabled=logging_enabled,
        )
        self.run({"set_queue": {"queue": queue, "attributes": attributes}})

    def queue(self, queue: str) -> dict[str, Any]:
        """What is told of a queue: `name`, its attributes, `active_messages`, `inactive_messages`,
        `delay_messages`, `create_time` and `last_modify_time`."""
        return self.run({"get_queue": {"queue": queue}})

    def delete_queue(self, queue: str) -> None:
        """Deletes a queue with its messages."""
        self.run({"delete_queue": {"queue": queue}})

    def queues(self, prefix: str | None = None, *, page: int = 100) -> Iterator[dict[str, Any]]:
        """All queues whose names begin so, as `queue` tells of one, read `page` at a time."""
        return self._listed("list_queues", "queues", prefix, page, {})

    def peek(self, queue: str, limit: int = 1) -> list[dict[str, Any]]:
        """Looks at up to 16 messages, which stay as they are: dicts with `message_id`, `body`, `enqueued_ms`,
        `dequeue_count` and `priority`. A body that is no text is in `body_base64`."""
        messages: list[dict[str, Any]] = self.run({"peek": {"queue": queue, "limit": limit}})["messages"]
        return messages

    def create_topic(
        self, topic: str, *, maximum_message_size: int | None = None, logging_enabled: bool | None = None
    ) -> bool:
        """Makes a topic; `False` where there is the same already, `InvalidArgument` where it has other attributes."""
        attributes = _given(maximum_message_size=maximum_message_size, logging_enabled=logging_enabled)
        return bool(self.run({"create_topic": {"topic": topic, "attributes": attributes}})["created"])

    def set_topic(
        self, topic: str, *, maximum_message_size: int | None = None, logging_enabled: bool | None = None
    ) -> None:
        """Changes attributes of a topic; those left out stay."""
        attributes = _given(maximum_message_size=maximum_message_size, logging_enabled=logging_enabled)
        self.run({"set_topic": {"topic": topic, "attributes": attributes}})

    def topic(self, topic: str) -> dict[str, Any]:
        """What is told of a topic: `name`, its attributes, `message_retention_period`, `message_count`, `create_time`
        and `last_modify_time`."""
        return self.run({"get_topic": {"topic": topic}})

    def delete_topic(self, topic: str) -> None:
        """Deletes a topic with its subscriptions."""
        self.run({"delete_topic": {"topic": topic}})

    def topics(self, prefix: str | None = None, *, page: int = 100) -> Iterator[dict[str, Any]]:
        """All topics whose names begin so, as `topic` tells of one, read `page` at a time."""
        return self._listed("list_topics", "topics", prefix, page, {})

    def subscribe(
        self,
        topic: str,
        subscription: str,
        endpoint: str,
        *,
        filter_tag: str | None = None,
        notify_strategy: Strategy | None = None,
        notify_content_format: Format | None = None,
    ) -> bool:
        """Has what is published on a topic pushed to an endpoint: `"http://HOST/PATH"`, or
        `"acs:mns:REGION:ACCOUNT:queues/QUEUE"`. `False` where there is the same subscription already."""
        attributes = _given(
            endpoint=endpoint,
            filter_tag=filter_tag,
            notify_strategy=notify_strategy,
            notify_content_format=notify_content_format,
        )
        command = {"topic": topic, "subscription": subscription, "attributes": attributes}
        return bool(self.run({"subscribe": command})["created"])

    def set_subscription(self, topic: str, subscription: str, *, notify_strategy: Strategy) -> None:
        """Changes how often a push that failed is tried again; nothing else of a subscription can be changed."""
        attributes = {"notify_strategy": notify_strategy}
        command = {"topic": topic, "subscription": subscription, "attributes": attributes}
        self.run({"set_subscription": command})

    def subscription(self, topic: str, subscription: str) -> dict[str, Any]:
        """What is told of a subscription: `name`, `topic`, `topic_owner`, `subscriber`, its attributes, `create_time`
        and `last_modify_time`."""
        return self.run({"get_subscription": {"topic": topic, "subscription": subscription}})

    def unsubscribe(self, topic: str, subscription: str) -> None:
        """Deletes a subscription."""
        self.run({"unsubscribe": {"topic": topic, "subscription": subscription}})

    def subscriptions(
        self, topic: str, prefix: str | None = None, *, page: int = 100
    ) -> Iterator[dict[str, Any]]:
        """All subscriptions of a topic whose names begin so, as `subscription` tells of one, read `page` at a time."""
        return self._listed("list_subscriptions", "subscriptions", prefix, page, {"topic": topic})

    def _listed(
        self, command: str, what: str, prefix: str | None, page: int, more: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        after: str | None = None
        while True:
            asked = {**more, **_given(prefix=prefix, limit=page, after=after)}
            answer = self.run({command: asked})
            yield from answer[what]
            after = answer["next"]
            if after is None:
                return


def _given(**attributes: Any) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
