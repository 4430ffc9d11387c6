"""IDENTIFY: every line of what NSQ's protocol says of it, and of its JSON."""

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqlite.wire.identify import Identity, Limits, Refused, negotiate

LIMITS = Limits(tls=True)
UNDECODED = "E_BAD_BODY IDENTIFY failed to decode JSON body"


def ask(limits: Limits = LIMITS, before: Identity | None = None, /, **said: Any) -> Identity:
    return negotiate(json.dumps(said).encode(), limits, before)


def refusal(body: bytes, limits: Limits = LIMITS) -> str:
    with pytest.raises(Refused) as info:
        negotiate(body, limits)
    assert info.value.text == str(info.value)
    return info.value.text


# What a client says, and what holds then


def test_the_defaults() -> None:
    """A client that says nothing gets what one without IDENTIFY has."""
    assert Identity(limits=LIMITS) == ask() == negotiate(b"null", LIMITS)
    found = attrs.asdict(ask(), filter=lambda field, _value: field.name != "limits")
    assert found == {
        "client_id": "",
        "hostname": "",
        "user_agent": "",
        "feature_negotiation": False,
        "heartbeat_interval": 30_000,
        "output_buffer_timeout": 250,
        "output_buffer_size": 16_384,
        "sample_rate": 0,
        "msg_timeout": 60_000,
        "tls": False,
        "deflate": False,
        "deflate_level": 6,
        "snappy": False,
        "topology_region": "",
        "topology_zone": "",
    }


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("client_id", "c1", "c1"),
        ("hostname", "", ""),
        ("user_agent", "go-nsq/1 é <&>", "go-nsq/1 é <&>"),
        ("topology_region", "eu", "eu"),
        ("topology_zone", "a", "a"),
        ("feature_negotiation", True, True),
        ("feature_negotiation", False, False),
        ("heartbeat_interval", 0, 30_000),
        ("heartbeat_interval", -1, 0),
        ("heartbeat_interval", 1_000, 1_000),
        ("heartbeat_interval", 60_000, 60_000),
        ("output_buffer_timeout", 0, 250),
        ("output_buffer_timeout", -1, 0),
        ("output_buffer_timeout", 25, 25),
        ("output_buffer_timeout", 30_000, 30_000),
        ("output_buffer_size", 0, 16_384),
        ("output_buffer_size", 64, 64),
        ("output_buffer_size", 65_536, 65_536),
        ("sample_rate", 0, 0),
        ("sample_rate", 99, 99),
        ("msg_timeout", 0, 60_000),
        ("msg_timeout", 1_000, 1_000),
        ("msg_timeout", 900_000, 900_000),
        ("deflate_level", 0, 6),  # and none of these without `feature_negotiation`
        ("tls_v1", True, None),
        ("deflate", True, None),
        ("snappy", True, None),
    ],
)
def test_a_value_that_is_accepted(key: str, value: Any, expected: Any) -> None:
    """It holds, and nothing else has changed."""
    found = ask(**{key: value})
    if expected is None:
        assert Identity(limits=LIMITS) == found
    else:
        assert attrs.evolve(Identity(limits=LIMITS), **{key: expected}) == found


def test_no_buffer_has_no_time() -> None:
    """A size of -1 ends the timed sending, too, whatever is asked for."""
    found = ask(output_buffer_size=-1, output_buffer_timeout=100)
    assert (1, 0) == (found.output_buffer_size, found.output_buffer_timeout)


@pytest.mark.parametrize(
    ("key", "what", "values"),
    [
        ("heartbeat_interval", "heartbeat interval", [-2, 1, 5, 999, 60_001, 1 << 62]),
        ("output_buffer_timeout", "output buffer timeout", [-2, 1, 24, 30_001]),
        ("output_buffer_size", "output buffer size", [-2, 1, 63, 65_537]),
        ("sample_rate", "sample rate", [-1, 100, (1 << 31) - 1, -(1 << 31)]),
        ("msg_timeout", "msg timeout", [-1, 1, 999, 900_001, -(1 << 63), (1 << 63) - 1]),
    ],
)
def test_a_value_that_is_refused(key: str, what: str, values: list[int]) -> None:
    """One out of its range ends the connection, with or without negotiation."""
    for value in values:
        body = json.dumps({key: value, "feature_negotiation": bool(value % 2)}).encode()
        assert f"E_BAD_BODY IDENTIFY {what} ({value}) is invalid" == refusal(body)


def test_the_first_bad_value_is_told() -> None:
    """In NSQ's order, which is not that of the keys; the features come last."""
    bad = {
        "snappy": True,
        "deflate": True,
        "feature_negotiation": True,
        "msg_timeout": 1,
        "sample_rate": 100,
        "output_buffer_size": 1,
        "output_buffer_timeout": 1,
        "heartbeat_interval": 1,
    }
    told = []
    for key in reversed(list(bad)[3:]):
        told.append(refusal(json.dumps(bad).encode()).removeprefix("E_BAD_BODY IDENTIFY "))
        del bad[key]
    assert [
        "heartbeat interval (1) is invalid",
        "output buffer timeout (1) is invalid",
        "output buffer size (1) is invalid",
        "sample rate (100) is invalid",
        "msg timeout (1) is invalid",
    ] == told
    both = "E_IDENTIFY_FAILED cannot enable both deflate and snappy compression"
    assert both == refusal(json.dumps(bad).encode())


def test_both_compressions_where_they_cannot_be() -> None:
    """It is no error if one is not to be had here, or if nothing is negotiated."""
    both = {"deflate": True, "snappy": True}
    assert not ask(**both).snappy
    only = ask(Limits(deflate=False), feature_negotiation=True, **both)
    assert (False, True) == (only.deflate, only.snappy)
    only = ask(Limits(snappy=False), feature_negotiation=True, **both)
    assert (True, False) == (only.deflate, only.snappy)


def test_tls_needs_a_certificate() -> None:
    """It is answered as not to be had by a node without one."""
    assert ask(feature_negotiation=True, tls_v1=True).tls
    assert not ask(Limits(), feature_negotiation=True, tls_v1=True).tls


@pytest.mark.parametrize(
    ("most", "deflate", "asked", "expected"),
    [
        (6, True, 1, 1),
        (6, True, 6, 6),
        (6, True, 9, 6),
        (9, True, 9, 9),
        (9, True, 100, 9),
        (9, True, 0, 6),
        (9, True, -5, 6),
        (3, True, 0, 3),
        (3, False, 9, 3),
        (9, False, 9, 6),  # what is not used is not heard
    ],
)
def test_the_level_of_deflate(most: int, deflate: bool, asked: int, expected: int) -> None:
    """The client's if it gives one, at most the node's."""
    limits = Limits(max_deflate_level=most)
    found = ask(limits, feature_negotiation=True, deflate=deflate, deflate_level=asked)
    assert expected == found.deflate_level


def test_a_second_identify() -> None:
    """Names and features are new, times and sizes stay as they were where it has none."""
    first = ask(
        client_id="c1",
        heartbeat_interval=2_000,
        output_buffer_size=128,
        output_buffer_timeout=-1,
        msg_timeout=3_000,
        sample_rate=7,
        feature_negotiation=True,
        snappy=True,
    )
    second = ask(LIMITS, first, hostname="h1")
    assert second == attrs.evolve(
        first, client_id="", hostname="h1", sample_rate=0, snappy=False, feature_negotiation=False
    )
    assert 4_000 == ask(LIMITS, first, heartbeat_interval=4_000).heartbeat_interval


# The answer


def test_the_answer_is_ok_without_negotiation() -> None:
    """What was asked for besides is not answered."""
    assert b"OK" == ask(snappy=True).reply()


def test_the_answer() -> None:
    """JSON as nsqd writes it, its keys in nsqd's order."""
    limits = Limits(topology_region="eu", topology_zone="a<b", auth_required=True)
    found = ask(limits, feature_negotiation=True, topology_zone="elsewhere").reply()
    assert found == (
        b'{"max_rdy_count":2500,"version":"1.3.0","max_msg_timeout":900000,"msg_timeout":60000,'
        b'"tls_v1":false,"deflate":false,"deflate_level":6,"max_deflate_level":6,"snappy":false,'
        b'"sample_rate":0,"auth_required":true,"output_buffer_size":16384,'
        b'"output_buffer_timeout":250,"topology_region":"eu","topology_zone":"a\\u003cb"}'
    )


def test_the_answer_tells_what_holds() -> None:
    """The values of this connection beside the limits of the node."""
    limits = Limits(
        max_rdy_count=7, max_msg_timeout=5_000, msg_timeout=4_000, max_deflate_level=9, tls=True
    )
    found = ask(
        limits,
        feature_negotiation=True,
        tls_v1=True,
        deflate=True,
        deflate_level=8,
        msg_timeout=1_000,
        sample_rate=10,
        output_buffer_size=-1,
    )
    assert json.loads(found.reply()) == {
        "max_rdy_count": 7,
        "version": "1.3.0",
        "max_msg_timeout": 5_000,
        "msg_timeout": 1_000,
        "tls_v1": True,
        "deflate": True,
        "deflate_level": 8,
        "max_deflate_level": 9,
        "snappy": False,
        "sample_rate": 10,
        "auth_required": False,
        "output_buffer_size": 1,
        "output_buffer_timeout": 0,
        "topology_region": "",
        "topology_zone": "",
    }


# JSON as Go decodes it


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"[]",
        b"1",
        b"1.5",
        b'"text"',
        b"true",
        b"NaN",
        b"{} {}",
        b"{}x",
        b"{",
        b'{"client_id": }',
        b"{'client_id': 'c1'}",
        b'{"client_id": "c\n1"}',
        b"\xef\xbb\xbf{}",
        b'{\xff"client_id": "c1"}',
        '{"client_id": "c1"}'.encode("utf-16"),
        b'{"unknown": NaN}',
        b'{"unknown": -Infinity}',
        b'{"unknown": 01}',
        b'{"unknown": ' + b"[" * 100_000,
        b'{"unknown": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'{"a":' * 100_000,
    ],
    ids=lambda body: body[:24],
)
def test_what_is_no_object(body: bytes) -> None:
    """It is not decoded, however deep it goes."""
    assert UNDECODED == refusal(body)


TEXTS = ("client_id", "hostname", "user_agent", "topology_region", "topology_zone")
FLAGS = ("feature_negotiation", "tls_v1", "deflate", "snappy")
NUMBERS = (
    "heartbeat_interval",
    "output_buffer_timeout",
    "output_buffer_size",
    "msg_timeout",
    "deflate_level",
    "sample_rate",
)


@pytest.mark.parametrize(
    ("keys", "values"),
    [
        (TEXTS, ["1", "true", "[]", "{}", "1.5"]),
        (FLAGS, ["1", "0", '"true"', "[]", "{}", "1.0"]),
        (
            NUMBERS,
            [
                *("1000.0", "1e3", "1E3", '"1000"', "true", "false", "[]", "{}", "1e400", "0.0"),
                *(str(1 << 63), str(-(1 << 63) - 1), "9" * 5_000, "-" + "9" * 5_000),
            ],
        ),
        (("sample_rate",), [str(1 << 31), str(-(1 << 31) - 1)]),
    ],
)
def test_values_of_the_wrong_kind(keys: tuple[str, ...], values: list[str]) -> None:
    """Each key takes one kind of value; a whole number has no point and no exponent."""
    for key in keys:
        for value in values:
            assert UNDECODED == refusal(f'{{"{key}": {value}}}'.encode()), (key, value)


@pytest.mark.parametrize(
    ("body", "key", "expected"),
    [
        (b'{"CLIENT_ID": "c1"}', "client_id", "c1"),
        (b'{"Client_Id": "c1"}', "client_id", "c1"),
        (b'{"clientid": "c1"}', "client_id", ""),
        (b'{"client_id": "c1", "client_id": "c2"}', "client_id", "c2"),
        (b'{"client_id": "c1", "CLIENT_ID": "c2"}', "client_id", "c2"),
        (b'{"client_id": "c1", "client_id": null}', "client_id", "c1"),
        (b'{"client_id": null}', "client_id", ""),
        (b'{"heartbeat_interval": null}', "heartbeat_interval", 30_000),
        (b'{"feature_negotiation": null}', "feature_negotiation", False),
        (b'{"sample_rate": -0}', "sample_rate", 0),
        (b' \t\r\n{"sample_rate" : 7 } \n', "sample_rate", 7),
        (b'{"client_id": "\\u00e9\\ud83d\\ude00"}', "client_id", "é😀"),
        (b'{"client_id": "\\ud800x"}', "client_id", "\ufffdx"),
        (b'{"client_id": "tea\xff"}', "client_id", "tea\ufffd"),
        (b'{"short_id": "c1", "long_id": 5}', "client_id", ""),
        (b'{"unknown": [1.5, {"client_id": "c9"}, 1e400, true]}', "client_id", ""),
        (b'{"unknown": ' + b"9" * 10_000 + b', "client_id": "c1"}', "client_id", "c1"),
        (b'{"unknown": ' + b"[" * 100 + b"]" * 100 + b', "client_id": "c1"}', "client_id", "c1"),
    ],
    ids=lambda value: value[:40] if isinstance(value, bytes) else None,
)
def test_what_go_overlooks(body: bytes, key: str, expected: Any) -> None:
    """Capital letters, unknown keys, keys given twice, nothing for a value."""
    assert expected == getattr(negotiate(body, LIMITS), key)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.sampled_from([*TEXTS, *FLAGS, *NUMBERS]) | st.text(), ANYTHING))
def test_any_json_is_decoded_or_refused(said: dict[str, Any]) -> None:
    """Whatever comes, the client is told of what is wrong, or an answer that JSON can say."""
    try:
        reply = negotiate(json.dumps(said).encode(), LIMITS).reply()
    except Refused as refused:
        reply = refused.text.encode()
    assert reply.startswith((b"E_BAD_BODY IDENTIFY ", b"E_IDENTIFY_FAILED ", b"OK", b"{"))


@given(st.binary())
def test_any_bytes_are_decoded_or_refused(body: bytes) -> None:
    """Nothing else is raised."""
    try:
        negotiate(body, LIMITS)
    except Refused:
        pass
