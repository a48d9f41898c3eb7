"""The ways in which a server misbehaves, each with how an update must end: a sentence, or release 2 all the same."""

from __future__ import annotations

import gzip
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import formatdate

from seedcnn.device.fetcher import DownloadLimits
from tests.device.hostile import Behaviour, Request, at_once_forever, bomb, forever

LIMITS = DownloadLimits(
    deadline=1.5, socket_timeout=0.6, grace=0.4, min_rate=500, tries=5, connects=3, backoff=0.05, max_backoff=0.2
)
PATIENT = replace(LIMITS, deadline=25.0, socket_timeout=5.0, grace=20.0)
DEAF = replace(LIMITS, socket_timeout=60.0, grace=60.0)  # only the deadline ends it
BUNDLE, TIMESTAMP, SNAPSHOT, ROOT, ALL = ".bundle", "timestamp.json", "snapshot.json", "root.json", "json"
GAVE_UP = "the deadline of 1.5 s has passed"


@dataclass(frozen=True)
class Case:
    """One way to misbehave; ``words`` is a pattern in the sentence, None if release 2 is installed all the same."""

    name: str
    behave: Behaviour
    suffix: str = BUNDLE
    words: str | None = None
    limits: DownloadLimits = LIMITS
    scheme: str = "http"
    waits: bool = False


CASES: list[Case] = []


def case(
    name: str, *suffixes: str, words: str | None = None, limits: DownloadLimits | None = None, **options
) -> Callable[[Behaviour], Behaviour]:
    """Add a case for each suffix."""

    def add(behave: Behaviour) -> Behaviour:
        for suffix in suffixes or (BUNDLE,):
            title = f"{name}, {suffix}" if len(suffixes) > 1 else name
            chosen = limits or (replace(LIMITS, deadline=8.0) if words else PATIENT)
            CASES.append(Case(title, behave, suffix, words, chosen, **options))
        return behave

    return add


# Slow ------------------------------------------------------------------------------------------------------------


@case("header byte by byte", BUNDLE, TIMESTAMP, words=GAVE_UP, limits=DEAF)
def header_drip(request: Request) -> None:
    request.drip(b"HTTP/1.1 200 OK\r\n" + b"X-Slow: 1\r\n" * 1000)


@case("endless row of 100 Continue", BUNDLE, TIMESTAMP, words=GAVE_UP, limits=DEAF)
def endless_continue(request: Request) -> None:
    request.drip(forever(b"HTTP/1.1 100 Continue\r\n\r\n"))


@case("endless row of 100 Continue at full speed", words=GAVE_UP, limits=DEAF)
def fast_continue(request: Request) -> None:
    request.drip(forever(b"HTTP/1.1 100 Continue\r\n\r\n" * 20), pause=0.005)


@case("chunk size byte by byte", BUNDLE, TIMESTAMP, words=GAVE_UP, limits=DEAF)
def chunk_drip(request: Request) -> None:
    request.head("200 OK", "Transfer-Encoding: chunked")
    request.drip(b"5" + b";x" * 5000)


@case("silence", BUNDLE, TIMESTAMP, words=GAVE_UP, limits=DEAF)
@case("silence, by its timeout", BUNDLE, words="timed out.*3 tries", limits=replace(LIMITS, socket_timeout=0.2))
def silence(request: Request) -> None:
    request.hang()


@case("silence before the request", "", words=GAVE_UP, limits=DEAF)
@case("silence instead of TLS", "", words=GAVE_UP, limits=DEAF, scheme="https")
def deaf(request: Request) -> None:
    request.server.stopped.wait(10)


@case("a handshake of TLS byte by byte", "", words=GAVE_UP, limits=DEAF, scheme="https")
def handshake_drip(request: Request) -> None:
    request.drip(b"\x16\x03\x03\x3f\x00" + bytes(5000))


@case("body byte by byte", words="bytes per second on average; at least 500")
@case("body byte by byte above the minimum rate", words=GAVE_UP, limits=replace(LIMITS, min_rate=1, grace=0.1))
def body_drip(request: Request) -> None:
    assert request.data is not None
    request.head("200 OK", f"Content-Length: {len(request.data)}")
    request.drip(request.data)


@case("redirect with an endless body")
def endless_redirect(request: Request) -> None:
    request.head("302 Found", f"Location: {request.path}?again", "Transfer-Encoding: chunked")
    at_once_forever(request, b"10000\r\n" + bytes(0x10000) + b"\r\n")


# Busy ------------------------------------------------------------------------------------------------------------


@case("one 503", BUNDLE, TIMESTAMP, ROOT)
@case("503 for a while, then good", limits=PATIENT)
def busy_once(request: Request) -> None:
    if request.number < 3:
        request.reply(b"busy", "503 Service Unavailable")
    else:
        request.serve()


@case("503 for ever", BUNDLE, TIMESTAMP, ROOT, ALL, words="HTTP status 503 .5 tries.")
@case("503 for ever, until the deadline", words="the deadline of 1.5 s", limits=replace(LIMITS, tries=10**6))
def busy(request: Request) -> None:
    request.reply(b"busy", "503 Service Unavailable")


@case("429 for ever", words="HTTP status 429 .5 tries.")
def too_many(request: Request) -> None:
    request.reply(b"", "429 Too Many Requests")


@case("429 with Retry-After 1, once", BUNDLE, TIMESTAMP)
def wait_a_second(request: Request) -> None:
    if request.number < 1:
        request.reply(b"", "429 Too Many Requests", "Retry-After: 1")
    else:
        request.serve()


@case("503 with Retry-After as a date in a second")
def wait_until(request: Request) -> None:
    if request.number < 1:
        # By the server's own clock, which is wrong.
        dates = (f"Date: {formatdate(10**9, usegmt=True)}", f"Retry-After: {formatdate(10**9 + 1, usegmt=True)}")
        request.reply(b"", "503 Service Unavailable", *dates)
    else:
        request.serve()


@case("503 with Retry-After 30", BUNDLE, TIMESTAMP, words="put off: .* asks to wait for 30 s", waits=True)
def wait_long(request: Request) -> None:
    request.reply(b"", "503 Service Unavailable", "Retry-After: 30")


@case("503 with Retry-After of a day", words="put off: .* asks to wait for 86400 s", waits=True)
def wait_a_day(request: Request) -> None:
    request.reply(b"", "503 Service Unavailable", "Retry-After: 86400")


@case("503 with Retry-After of an age", words="put off: .* asks to wait for 10000000000000000 s", waits=True)
def wait_an_age(request: Request) -> None:
    request.reply(b"", "503 Service Unavailable", "Retry-After: " + "9" * 5000)


@case("503 with Retry-After as a date in a year", words="put off: .* asks to wait for 3[0-9]+ s", waits=True)
def wait_a_year(request: Request) -> None:
    request.reply(b"", "503 Service Unavailable", f"Retry-After: {formatdate(time.time() + 4e7 / 1.25, usegmt=True)}")


@case("503 with nonsense as Retry-After", words="HTTP status 503 .5 tries.")
def wait_nonsense(request: Request) -> None:
    request.reply(b"", "503 Service Unavailable", "Retry-After: soon, -1")


# Broken ----------------------------------------------------------------------------------------------------------


@case("reset once", BUNDLE, TIMESTAMP)
def reset_once(request: Request) -> None:
    request.reset() if request.number < 1 else request.serve()


@case("reset for ever", BUNDLE, TIMESTAMP, words="could not be downloaded: .*3 tries")
def reset(request: Request) -> None:
    request.reset()


@case("cut at 30 % of the file each time")
def cut_at_30(request: Request) -> None:
    request.serve(lambda begin, end: min(end, begin + -(-end * 3 // 10)))


@case("cut at 30 % of what is left each time")
def cut_at_30_of_the_rest(request: Request) -> None:
    request.serve(lambda begin, end: begin + -(-(end - begin) * 3 // 10))


@case("cut at the same place each time", BUNDLE, SNAPSHOT, words="broke off after .*3 tries")
def cut(request: Request) -> None:
    assert request.data is not None
    request.head("200 OK", f"Content-Length: {len(request.data)}")
    request.send(request.data[: len(request.data) // 2])


# Ranges that lie ---------------------------------------------------------------------------------------------------


def after_a_cut(answer: Callable[[Request, bytes, int, int], None]) -> Behaviour:
    """Cut the first transfer in the middle, answer the range by ``answer``, and serve what is asked for without one."""

    def behave(request: Request) -> None:
        if request.number == 0:
            request.serve(lambda begin, end: end // 2)
        elif request.start:
            assert request.data is not None
            answer(request, request.data, request.start, len(request.data))
        else:
            request.serve()

    return behave


def ranged(name: str, answer: Callable[[Request, bytes, int, int], None]) -> None:
    case(f"range: {name}")(after_a_cut(answer))


ranged("416", lambda r, data, begin, end: r.reply(b"", "416 Range Not Satisfiable", f"Content-Range: bytes */{end}"))
ranged("200 and the whole", lambda r, data, begin, end: r.reply(data))
ranged(
    "wrong start",
    lambda r, data, begin, end: r.reply(
        data[:-begin], "206 Partial Content", f"Content-Range: bytes 0-{end - 1}/{end}"
    ),
)
ranged(
    "wrong total",
    lambda r, data, begin, end: r.reply(
        data[begin:], "206 Partial Content", f"Content-Range: bytes {begin}-{end - 1}/{end + 9}"
    ),
)
ranged(
    "other entity tag",
    lambda r, data, begin, end: r.reply(
        bytes(end - begin), "206 Partial Content", f"Content-Range: bytes {begin}-{end - 1}/{end}", 'ETag: "other"'
    ),
)
ranged("no Content-Range", lambda r, data, begin, end: r.reply(data[begin:], "206 Partial Content"))
ranged(
    "too long, and says so",
    lambda r, data, begin, end: r.reply(
        data[begin:] + b"x" * 99, "206 Partial Content", f"Content-Range: bytes {begin}-{end - 1}/{end}"
    ),
)
ranged(
    "other bytes",
    lambda r, data, begin, end: r.reply(
        bytes(end - begin), "206 Partial Content", f"Content-Range: bytes {begin}-{end - 1}/{end}"
    ),
)
ranged(
    "only a piece",
    lambda r, data, begin, end: r.reply(
        data[begin : begin + 1000],
        "206 Partial Content",
        f"Content-Range: bytes {begin}-{min(begin + 1000, end) - 1}/{end}",
    ),
)
ranged(
    "packed",
    lambda r, data, begin, end: r.reply(
        gzip.compress(data)[begin:],
        "206 Partial Content",
        f"Content-Range: bytes {begin}-{end - 1}/{end}",
        "Content-Encoding: gzip",
    ),
)


@case("range: too long, chunked")
@after_a_cut
def range_too_long(request: Request, data: bytes, begin: int, end: int) -> None:
    request.head("206 Partial Content", f"Content-Range: bytes {begin}-{end - 1}/{end}", "Transfer-Encoding: chunked")
    request.send(b"%x\r\n" % (end - begin + 99) + data[begin:] + bytes(99) + b"\r\n0\r\n\r\n")


@case("range: two ranges in parts")
@after_a_cut
def range_in_parts(request: Request, data: bytes, begin: int, end: int) -> None:
    request.reply(
        b"--x\r\n\r\n" + data[begin:], "206 Partial Content", "Content-Type: multipart/byteranges; boundary=x"
    )


@case("range: every second one lies", words="range to a request for the whole file|broke off|not what was signed")
def range_liar(request: Request) -> None:
    assert request.data is not None
    end = len(request.data)
    if request.start:
        request.reply(b"x", "206 Partial Content", f"Content-Range: bytes 1-1/{end}")
    else:
        request.serve(lambda begin, end: end // 2)


@case("a range that nobody asked for", words="a range to a request for the whole file")
def unasked(request: Request) -> None:
    assert request.data is not None
    end = len(request.data)
    request.reply(request.data, "206 Partial Content", f"Content-Range: bytes 0-{end - 1}/{end}")


# Statuses and redirects --------------------------------------------------------------------------------------------


def answers(name: str, words: str, status: str, *fields: str, body: bytes = b"", suffix: str = BUNDLE) -> None:
    case(name, suffix, words=words)(lambda request: request.reply(body, status, *fields))


answers("204", "HTTP status 204", "204 No Content")
answers("304", "HTTP status 304", "304 Not Modified", suffix=TIMESTAMP)
answers("404", "HTTP status 404", "404 Not Found", body=b"gone")
answers("302 without Location", "HTTP status 302", "302 Found")
answers("302 to file:", "redirects to 'file:///etc/passwd', no http", "302 Found", "Location: file:///etc/passwd")
answers("302 to nonsense", "redirects to|cannot be reached", "302 Found", "Location: http://[::1")
answers("captive portal", "metadata is not valid", "200 OK", body=b"<html>pay</html>", suffix=TIMESTAMP)
answers("captive portal for the bundle", "not what was signed", "200 OK", body=b"<html>pay</html>")


@case("redirect loop", words="too many redirects")
def redirect_loop(request: Request) -> None:
    request.reply(b"", "302 Found", f"Location: {request.path}")


# Lengths and framing -----------------------------------------------------------------------------------------------


def framed(name: str, *fields: str, words: str | None = None, status: str = "200 OK", upto: int | None = None) -> None:
    def behave(request: Request) -> None:
        assert request.data is not None
        request.head(status, *(each.format(len(request.data)) for each in fields))
        request.send(request.data[:upto])

    case(name, words=words)(behave)


framed("no Content-Length")
framed("no Content-Length, and cut", words="broke off after 300 of .*3 tries", upto=300)
framed("Content-Length too long", "Content-Length: 9{}")
framed("Content-Length of 10^18", "Content-Length: 1000000000000000000")
framed("Content-Length negative", "Content-Length: -5")
framed("Content-Length abc", "Content-Length: abc")
framed("Content-Length twice", "Content-Length: {}", "Content-Length: 5", words="invalid|Content-Length")
framed("Content-Length too short", "Content-Length: 77", words="not what was signed")
framed("Content-Encoding of nonsense", "Content-Encoding: rot13")
framed("Content-Encoding that lies", "Content-Encoding: gzip", words="failed to decode")
framed("chunked with a bad size", "Transfer-Encoding: chunked", words="could not be downloaded: .*3 tries")
framed("200 fields", *["X: y"] * 200, words="got more than")
framed("a field of 1 MB", "X: " + "y" * (1 << 20), words="line too long|Header|got more than|header line")


@case("Content-Length too long, and hangs", limits=replace(LIMITS, socket_timeout=0.3, deadline=5))
def hang_at_the_end(request: Request) -> None:
    assert request.data is not None
    request.head("200 OK", f"Content-Length: {len(request.data) + 99}")
    request.send(request.data)
    request.hang()


@case("HTTP/1.0")
def http_1_0(request: Request) -> None:
    request.sock.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + (request.data or b""))


@case("HTTP/0.9", words="could not be downloaded|cannot be reached")
def http_0_9(request: Request) -> None:
    request.send(request.data or b"")


@case("chunked")
@case("chunked, metadata", TIMESTAMP)
def chunked(request: Request) -> None:
    data = request.data or b""
    request.head("200 OK", "Transfer-Encoding: chunked")
    request.send(b"%x\r\n" % len(data) + data + b"\r\n0\r\n\r\n")


@case("chunked and cut", words="broke off after .*3 tries")
def chunked_cut(request: Request) -> None:
    request.head("200 OK", "Transfer-Encoding: chunked")
    request.send(b"1000\r\n" + bytes(700))


@case("packed honestly", BUNDLE, TIMESTAMP)
def packed(request: Request) -> None:
    request.reply(gzip.compress(request.data or b""), "200 OK", "Content-Encoding: gzip")


# Too much ------------------------------------------------------------------------------------------------------------


@case("endless bundle", words="sends more than [0-9]+|sends more than the [0-9]+ bytes signed", limits=PATIENT)
@case("endless timestamp", TIMESTAMP, words="sends more than the 16384 bytes allowed", limits=PATIENT)
def endless(request: Request) -> None:
    request.head("200 OK", "Transfer-Encoding: chunked")
    at_once_forever(request, b"10000\r\n" + bytes(0x10000) + b"\r\n")


@case("endless page with the 404 of the next root", ROOT)
def endless_404(request: Request) -> None:
    request.head("404 Not Found", "Content-Length: 1000000000000")
    at_once_forever(request, bytes(0x10000))


@case("4 GiB out of 4 MB in the 404 of the next root", ROOT)
def bomb_404(request: Request) -> None:
    request.reply(bomb(4 << 30), "404 Not Found", "Content-Encoding: gzip")


@case("4 GiB out of 4 MB", BUNDLE, TIMESTAMP, words="sends more than the [0-9]+ bytes", limits=PATIENT)
def bomb_200(request: Request) -> None:
    request.reply(bomb(4 << 30), "200 OK", "Content-Encoding: gzip")


@case("2 GiB packed twice", BUNDLE, TIMESTAMP, words="sends more than the [0-9]+ bytes", limits=PATIENT)
def bomb_twice(request: Request) -> None:
    request.reply(gzip.compress(bomb(2 << 30), 1), "200 OK", "Content-Encoding: gzip, gzip")


@case("deflate without end", TIMESTAMP, words="sends more than the [0-9]+ bytes", limits=PATIENT)
def bomb_deflate(request: Request) -> None:
    request.head("200 OK", "Content-Encoding: deflate")
    packer = zlib.compressobj(9)
    while not request.server.stopped.is_set():
        request.send(packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH))
