"""Frames come out whole and unchanged, however the bytes arrive, and are known for what they are."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.chaos.conversation import FrameError, Part, Toward
from runtime.chaos.http_frames import HttpConversation
from runtime.chaos.nats_frames import NatsConversation, Parser

# Every byte that a server takes in a subject: form feeds and high bytes among them.
words = st.binary(min_size=1, max_size=12).map(
    lambda raw: bytes(byte for byte in raw if byte not in b" \t\r\n") or b"a"
)
payloads = st.binary(max_size=60)
blanks = st.sampled_from([b" ", b"\t", b"  "])


@st.composite
def published(draw: st.DrawFn) -> bytes:
    verb, middle = draw(st.sampled_from([(b"PUB", 0), (b"MSG", 1), (b"HPUB", 0), (b"HMSG", 1)]))
    line = [verb, draw(words), *[b"7"] * middle]
    if draw(st.booleans()):
        line.append(draw(words))
    header = b""
    if verb.startswith(b"H"):
        header = b"NATS/1.0\r\nA: " + draw(st.binary(max_size=9)) + b"\r\n\r\n"
        line.append(b"%d" % len(header))
    body = header + draw(payloads)
    line.append(b"%d" % len(body))
    if draw(st.booleans()):
        line[0] = verb.lower()
    return draw(blanks).join(line) + b"\r\n" + body + b"\r\n"


plain = st.sampled_from(
    [
        b"PING\r\n",
        b"PONG\r\n",
        b"+OK\r\n",
        b"-ERR 'Authorization Violation'\r\n",
        b'INFO {"server_name":"a b","max_payload":8} \r\n',
        b'CONNECT {"verbose":false}\r\n',
        b"SUB _INBOX.a.*  1\r\n",
        b"SUB a queue 2\r\n",
        b"UNSUB 1\r\n",
        b"UNSUB 1 5\r\n",
    ]
)


@given(st.lists(st.one_of(published(), plain), max_size=8), st.data())
def test_any_cutting_of_the_bytes_gives_the_same_frames_and_loses_none(
    frames: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(frames)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=10).map(sorted))
    parser = Parser()
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    heard = [frame for piece in pieces for frame in parser.feed(piece)]
    assert [frame.wire for frame in heard] == frames
    assert heard == Parser().feed(stream)


def test_the_parts_of_a_message_are_told_apart() -> None:
    [bare, full] = Parser().feed(
        b"MSG to 9 3\r\nabc\r\nHMSG to 9 back 12 15\r\nNATS/1.0\r\n\r\nabc\r\n"
    )
    assert (bare.subject, bare.reply, bare.header, bare.payload) == (b"to", b"", b"", b"abc")
    assert (full.subject, full.reply) == (b"to", b"back")
    assert (full.header, full.payload) == (b"NATS/1.0\r\n\r\n", b"abc")


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1\r\n",
        b"\r\n",
        b"PUB a\r\n",
        b"PUB a b c 1\r\n",
        b"PUB a x\r\n",
        b"PUB a -1\r\n",
        b"HPUB a 9 3\r\n",
        b"PUB a 99999999999\r\n",
        b"\x16\x03\x01\x02\x00\n",
    ],
)
def test_what_is_not_nats_is_refused(line: bytes) -> None:
    with pytest.raises(FrameError):
        Parser().feed(line)


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    parser = Parser()
    for _ in range(16):
        parser.feed(b"x" * (1 << 16))
    with pytest.raises(FrameError, match="a line of more than"):
        parser.feed(b"x")


def test_an_answer_to_a_publish_is_told_from_other_answers_and_from_deliveries() -> None:
    conversation = NatsConversation()
    asked = conversation.hear(
        Toward.SERVER,
        b"PUB ORDER.a in.answer.1 1\r\nx\r\n"
        b"PUB $JS.API.STREAM.INFO.ORDERS in.answer.2 0\r\n\r\n"
        b"PUB $JS.API.CONSUMER.MSG.NEXT.O.r in.3.1 0\r\n\r\n"
        b"PING\r\n",
    )
    assert [said.part for said in asked] == [
        Part.PUBLISH,
        Part.REQUEST,
        Part.REQUEST,
        Part.CHATTER,
    ]
    heard = conversation.hear(
        Toward.CLIENT,
        b"MSG in.answer.2 1 2\r\n{}\r\n"
        b"MSG in.answer.1 1 2\r\n{}\r\n"
        b"MSG ORDER.a 2 $JS.ACK.ORDERS.r.1.1.1.1.0 1\r\nx\r\n"
        b"HMSG in.3.1 2 29 29\r\nNATS/1.0 100 Idle Heartbeat\r\n\r\n"
        b"PONG\r\n",
    )
    assert [(said.part, said.about) for said in heard] == [
        (Part.ANSWER, "$JS.API.STREAM.INFO.ORDERS"),
        (Part.PUB_ACK, "ORDER.a"),
        (Part.DELIVERY, "ORDER.a"),
        (Part.STATUS, "100 Idle Heartbeat"),
        (Part.CHATTER, "PONG"),
    ]


def _http(head: str, body: bytes = b"") -> bytes:
    return f"{head}\r\nHost: a\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@given(st.integers(1, 30), st.binary(max_size=40))
def test_requests_and_replies_of_a_provider_come_out_whole(step: int, body: bytes) -> None:
    conversation = HttpConversation()
    request = _http("POST /charges HTTP/1.1", body) + b"GET /charges?reference=a HTTP/1.1\r\n\r\n"
    asked = [
        said
        for start in range(0, len(request), step)
        for said in conversation.hear(Toward.SERVER, request[start : start + step])
    ]
    assert [said.about for said in asked] == ["POST /charges", "GET /charges?reference=a"]
    assert b"".join(said.wire for said in asked) == request
    reply = _http("HTTP/1.1 201 Created", json.dumps({"id": 1}).encode())
    [said] = conversation.hear(Toward.CLIENT, reply)
    assert (said.wire, said.part) == (reply, Part.ANSWER)


def test_a_reply_whose_end_cannot_be_told_is_refused() -> None:
    with pytest.raises(FrameError):
        HttpConversation().hear(
            Toward.CLIENT, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
