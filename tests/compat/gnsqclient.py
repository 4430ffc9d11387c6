"""A program that uses gnsq, with its Producer and Consumer; see `driving`."""

import json
import sys
from typing import Any

import gevent
import gnsq
from gevent.event import AsyncResult
from gevent.fileobject import FileObject

from compat.driving import answer, arguments_of, body_of, numbered, tell

OPTIONS = {"heartbeat": "heartbeat_interval", "secret": "auth_secret"}


def options_of(asked: dict[str, Any]) -> dict[str, Any]:
    """Return gnsq's options for those that all programs have."""
    options = {OPTIONS.get(name, name): value for name, value in asked.items()}
    authority = options.pop("tls", None)
    if authority:
        options.update(tls_v1=True, tls_options={"ca_certs": authority})
    options.pop("msg_timeout", None)  # gnsq takes the server's
    if "auth_secret" in options:
        options["auth_secret"] = options["auth_secret"].encode()
    return options | {"max_backoff_duration": 0.2}


def listen(client: Any, name: str) -> None:
    """Tell what a consumer or producer hears."""

    def hear(_client: Any, response: bytes) -> None:
        if response == b"_heartbeat_":
            tell(name, "heartbeat")

    def authorised(_client: Any, conn: Any, response: Any) -> None:  # noqa: ARG001 - gnsq's
        tell(name, "auth", said=str(response))

    client.on_response.connect(hear, weak=False)
    client.on_error.connect(lambda _, error: tell(name, "error", text=str(error)), weak=False)
    client.on_auth.connect(authorised, weak=False)


class PlainProducer:
    """A connection of gnsq that publishes, as its Producer knows neither TLS nor compression.

    It takes the OK of each layer for one of a message, and fails for want of that.
    """

    def __init__(self, port: int, **options: Any) -> None:
        options.pop("max_backoff_duration")
        self._client = gnsq.NsqdTCPClient("127.0.0.1", port, **options)
        self._client.connect()
        self._client.identify()

    def publish(
        self, topic: str, body: bytes, *, raise_error: bool = True, timeout: float = 0
    ) -> Any:
        """Publish a message; see `gnsq.Producer.publish`."""
        del timeout  # it is connected
        self._client.publish(topic, body)
        result = AsyncResult()
        try:
            self._client.check_ok()
        except gnsq.errors.NSQException as error:
            result.set_exception(error)
        else:
            result.set(b"OK")
        return result.get() if raise_error else result

    def multipublish(self, topic: str, bodies: list[bytes]) -> bytes:
        """Publish several."""
        self._client.multipublish(topic, bodies)
        self._client.check_ok()
        return b"OK"


class Program:
    """What is asked for, by its name."""

    def __init__(self) -> None:
        self.writers: dict[str, Any] = {}
        self.readers: dict[str, Any] = {}
        self.messages: dict[tuple[str, str], Any] = {}

    def writer(self, name: str, port: int, **asked: Any) -> None:
        """Make a writer."""
        options = options_of(asked)
        if asked.keys() & {"snappy", "deflate", "tls"}:
            self.writers[name] = PlainProducer(port, **options)
        else:
            self.writers[name] = producer = gnsq.Producer([f"127.0.0.1:{port}"], **options)
            listen(producer, name)
            producer.start()
        tell(name, "ready")

    def pub(self, name: str, topic: str, body: str) -> str:
        """Publish a message."""
        return str(self.writers[name].publish(topic, body_of(body)).decode())

    def mpub(self, name: str, topic: str, bodies: list[str]) -> str:
        """Publish several."""
        return str(self.writers[name].multipublish(topic, list(map(body_of, bodies))).decode())

    def dpub(self, name: str, topic: str, delay: int, body: str) -> str:
        """Publish one for later."""
        return str(self.writers[name].publish(topic, body_of(body), defer=delay).decode())

    def flood(self, name: str, topic: str, first: int, count: int) -> list[int]:
        """Publish many, one by one, without waiting; return the numbers that were taken."""
        writer = self.writers[name]
        bodies = numbered(first, count)
        answers = []
        try:
            for body in bodies:
                sent = writer.publish(topic, body, raise_error=False, timeout=1)
                answers.append(sent)
        except (gnsq.errors.NSQException, KeyError):  # the connection is lost
            pass
        gevent.wait(answers)
        return [first + place for place, said in enumerate(answers) if said.successful()]

    def reader(
        self, name: str, port: int, topic: str, channel: str, window: int, **asked: Any
    ) -> None:
        """Make a reader, which tells of each message, and finishes it unless it is to be kept."""
        keep = asked.pop("keep", False)

        def handle(_consumer: Any, message: Any) -> None:
            body = message.body.decode("latin-1")
            told = {"attempts": message.attempts, "id": message.id}
            tell(name, "message", body=body, timestamp=message.timestamp, **told)
            if keep:
                message.enable_async()
                self.messages[name, body] = message

        self.readers[name] = consumer = gnsq.Consumer(
            topic,
            channel,
            [f"127.0.0.1:{port}"],
            name=name,
            message_handler=handle,
            max_in_flight=window,
            **options_of(asked),
        )
        listen(consumer, name)
        consumer.start(block=False)

    def http(self, name: str, port: int, call: str, arguments: list[Any], **more: Any) -> Any:
        """Make a call by HTTP; what is not a topic's or channel's name is bytes."""
        del name
        client = gnsq.NsqdHTTPClient("127.0.0.1", port)
        if call == "publish":
            arguments[1] = body_of(arguments[1])
        elif call == "multipublish":
            arguments[1] = list(map(body_of, arguments[1]))
        return getattr(client, call)(*arguments, **more)

    def fin(self, name: str, body: str) -> None:
        """Finish a message that was kept."""
        self.messages.pop((name, body)).finish()

    def req(self, name: str, body: str, delay: int, *, backoff: bool) -> None:
        """Requeue one; the delay is in milliseconds."""
        self.messages.pop((name, body)).requeue(delay, backoff)

    def touch(self, name: str, body: str) -> None:
        """Touch one."""
        self.messages[name, body].touch()


def main() -> None:
    """Do what is asked for until there is nobody to ask."""
    program = Program()

    def act(request: dict[str, Any]) -> None:
        try:
            answer(request, getattr(program, request["do"])(**arguments_of(request)))
        except Exception as error:
            answer(request, error)

    for line in FileObject(sys.stdin.fileno(), "r"):
        gevent.spawn(act, json.loads(line))


main()
