"""Handler: the same class under the standard library's own server, unchanged."""

import socket
import threading
from http.server import ThreadingHTTPServer

import pytest
import server
from serverkit import LOGIN, RAW_LOGIN, answers, build, raw, read_all


@pytest.fixture
def stock():
    stock = ThreadingHTTPServer(("127.0.0.1", 0), server.handler_for(build()))
    thread = threading.Thread(target=stock.serve_forever, args=(0.01,))
    thread.start()
    yield stock
    stock.shutdown()
    thread.join()
    stock.server_close()


def exchange(stock, *pieces):
    with socket.create_connection(stock.server_address, timeout=10) as client:
        for piece in pieces:
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        return answers(read_all(client))


def test_the_handler_runs_under_the_stock_server(stock):
    (login,) = exchange(stock, RAW_LOGIN)
    assert login.status == 200 and login["Connection"] == "close"
    cookie = login["Set-Cookie"].partition(";")[0]
    (refresh,) = exchange(stock, raw("POST", "/refresh", b"", f"Cookie: {cookie}"))
    assert refresh.status == 200 and list(refresh.json) == ["accessToken"]


def test_the_stock_server_reads_a_request_in_pieces(stock):
    (answer,) = exchange(stock, *(RAW_LOGIN[i : i + 1] for i in range(len(RAW_LOGIN))))
    assert answer.status == 200


@pytest.mark.parametrize(
    "data, status",
    [
        (b"hello\r\n\r\n", 400),
        (RAW_LOGIN[:-1], 400),
        (raw("GET", "/nothing"), 404),
        (raw("POST", "/login", LOGIN), 406),
    ],
)
def test_the_stock_server_gives_our_errors(stock, data, status):
    (answer,) = exchange(stock, data)
    assert answer.status == status and "message" in answer.json and answer["Server"] is None


def test_nothing_sent_is_nothing_answered(stock):
    assert exchange(stock) == []
