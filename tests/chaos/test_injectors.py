"""The faults do what they say; else tests that survive them would show nothing."""

import itertools
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tbcluster.cluster.places import make_run_dir
from tbcluster.transport.curve import Guard, new_keys
from tbcluster.transport.zeromq import ZmqReceiver, ZmqSender
from tbcluster.wire.control import Route
from tests.doubles.checkpoints import write_llama
from tests.doubles.faults.memory import flip_bits, needs_process_memory, tensor_bytes
from tests.doubles.faults.proxy import LOOPBACK, TcpProxy
from tests.doubles.faults.relay import FrameRelay, Message, send_again
from tests.doubles.faults.signals import kill, wedged
from tests.doubles.waiting import wait_until

PATIENCE_S = 10.0
QUIET_S = 0.2
HOLDER = (
    "import sys; read, write = sys.stdin.buffer.read, sys.stdout.buffer.write\n"
    "data = bytearray(read(int.from_bytes(read(8), 'little')))\n"
    "print('held', flush=True); read(1); write(data)"
)


class Echo:
    """A server that sends back whatever it gets, and remembers it."""

    def __init__(self) -> None:
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client:
            while data := client.recv(1 << 16):
                client.sendall(data)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def proxy() -> Iterator[TcpProxy]:
    echo = Echo()
    with TcpProxy(echo.port) as made:
        yield made
    echo.close()


def connected(proxy: TcpProxy) -> socket.socket:
    client = socket.create_connection((LOOPBACK, proxy.port), PATIENCE_S)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def said(client: socket.socket, data: bytes, length: int | None = None) -> bytes:
    """Say something, and give what comes back: so many bytes, or until the end."""
    client.sendall(data)
    heard = b""
    while len(heard) < (len(data) if length is None else length):
        part = client.recv(1 << 16)
        if not part:
            break
        heard += part
    return heard


def test_a_proxy_passes_on_what_it_is_not_told_to_spoil(proxy: TcpProxy) -> None:
    with connected(proxy) as client:
        assert said(client, b"abcd") == b"abcd"
    assert proxy.num_spoilt == 0


def test_a_proxy_flips_one_bit_of_one_piece(proxy: TcpProxy) -> None:
    with connected(proxy) as client:
        proxy.corrupt()
        assert said(client, b"abcd") == b"absd"
        assert said(client, b"abcd") == b"abcd"
    assert proxy.num_spoilt == 1


def test_a_proxy_truncates_and_ends_the_connection(proxy: TcpProxy) -> None:
    with connected(proxy) as client:
        proxy.truncate()
        assert said(client, b"abcd") in (b"", b"ab")  # the end may overtake the echo
    with connected(proxy) as client:
        assert said(client, b"abcd") == b"abcd"


def test_a_proxy_repeats_reorders_and_replays(proxy: TcpProxy) -> None:
    with connected(proxy) as client:
        proxy.repeat()
        assert said(client, b"ab", 4) == b"abab"
        proxy.reorder()
        client.sendall(b"1")
        wait_until(lambda: proxy.num_spoilt == 2, "the piece is held")
        assert said(client, b"2", 2) == b"21"
        proxy.replay()
        assert said(client, b"3", 2) == b"23"
    assert not proxy.is_spoiling


def test_a_stalled_proxy_loses_nothing(proxy: TcpProxy) -> None:
    with connected(proxy) as client:
        proxy.stall()
        client.sendall(b"abcd")
        client.settimeout(QUIET_S)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(PATIENCE_S)
        proxy.resume()
        assert said(client, b"e", 5) == b"abcde"


def test_a_cut_proxy_refuses_until_it_is_mended(proxy: TcpProxy) -> None:
    with connected(proxy) as client:
        assert said(client, b"abcd") == b"abcd"
        proxy.cut()
        assert is_dead(client)
    with connected(proxy) as client:
        assert is_dead(client)
    proxy.mend()
    with connected(proxy) as client:
        assert said(client, b"abcd") == b"abcd"


def is_dead(client: socket.socket) -> bool:
    try:
        return said(client, b"abcd") == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    "spoil", [TcpProxy.corrupt, TcpProxy.truncate, TcpProxy.repeat, TcpProxy.replay]
)
def test_what_is_spoilt_under_curve_is_lost_and_never_another_message(
    proxy: TcpProxy, spoil: Callable[[TcpProxy], None]
) -> None:
    keys = new_keys()
    receiver = ZmqReceiver(f"tcp://{LOOPBACK}:*", guard=Guard(keys, lambda key: True))
    proxy.target = receiver.port
    sender = ZmqSender(Route(f"tcp://{LOOPBACK}:{proxy.port}", keys.public), keys=new_keys())
    numbers = itertools.count()
    heard: list[int] = []

    def is_heard() -> bool:
        number = next(numbers)
        sender.send([number.to_bytes(4, "little")])
        while heard[-1:] != [number] and (frames := receiver.receive(QUIET_S)) is not None:
            heard.append(int.from_bytes(frames[0], "little"))
        return heard[-1:] == [number]

    wait_until(is_heard, "the first message is there")
    spoil(proxy)
    wait_until(lambda: is_heard() and proxy.num_spoilt == 1, "it goes on after the fault")
    assert heard == sorted(set(heard)), "each once, in order"
    sender.close()
    receiver.close()


@pytest.fixture
def relayed() -> Iterator[tuple[FrameRelay, ZmqSender, "queue.SimpleQueue[Message]"]]:
    """A relay, what sends to it, and what comes out of it."""
    run_dir = make_run_dir()
    out: queue.SimpleQueue[Message] = queue.SimpleQueue()
    receiver = ZmqReceiver(f"ipc://{run_dir}/out")
    is_over = threading.Event()

    def listen() -> None:
        while not is_over.is_set():
            frames = receiver.receive(0.02)
            if frames is not None:
                out.put([bytes(frame) for frame in frames])

    listener = threading.Thread(target=listen)
    listener.start()
    relay = FrameRelay(f"ipc://{run_dir}/in", f"ipc://{run_dir}/out")
    sender = ZmqSender(Route(relay.endpoint))
    yield relay, sender, out
    relay.close()
    is_over.set()
    listener.join()
    sender.close()
    receiver.close()
    Path(run_dir, "in").unlink(missing_ok=True)
    Path(run_dir, "out").unlink(missing_ok=True)
    run_dir.rmdir()


def test_a_relay_loses_repeats_reorders_and_spoils_whole_messages(
    relayed: tuple[FrameRelay, ZmqSender, "queue.SimpleQueue[Message]"],
) -> None:
    relay, sender, out = relayed

    def passed(*messages: bytes, count: int) -> list[Message]:
        for message in messages:
            sender.send([message, b"1234"])
        return [out.get(timeout=PATIENCE_S) for _ in range(count)]

    assert passed(b"a", count=1) == [[b"a", b"1234"]]
    relay.lose()
    assert passed(b"b", b"c", count=1) == [[b"c", b"1234"]]
    relay.repeat()
    assert passed(b"d", count=2) == [[b"d", b"1234"]] * 2
    relay.reorder()
    assert passed(b"e", b"f", count=2) == [[b"f", b"1234"], [b"e", b"1234"]]
    relay.truncate()
    assert passed(b"g", count=1) == [[b"g", b"12"]]
    relay.garble()
    assert passed(b"h", count=1) == [[b"\xc1", b"1234"]]
    assert [message[0] for message in relay.recorded] == [
        b"a",
        b"b",
        b"c",
        b"d",
        b"e",
        b"f",
        b"g",
        b"h",
    ]
    send_again(relay.endpoint, list(relay.recorded)[:2])
    assert [out.get(timeout=PATIENCE_S)[0] for _ in range(2)] == [b"a", b"b"]
    assert out.empty()


@needs_process_memory
def test_bits_are_flipped_in_a_live_process(tmp_path: Path) -> None:
    model = write_llama(tmp_path)
    name = "model.layers.1.mlp.down_proj.weight"
    before = tensor_bytes(model, name)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write(len(before).to_bytes(8, "little") + before)
    holder.stdin.flush()
    assert holder.stdout.readline() == b"held\n"
    assert flip_bits(holder.pid, model, name, num_values=2).addresses
    held, _ = holder.communicate(b"\n")
    changed = [at for at in range(len(before)) if held[at] != before[at]]
    assert changed == [3, 7]
    assert all(held[at] ^ before[at] == 0x40 for at in changed)


@needs_process_memory
def test_bits_that_a_process_does_not_hold_are_not_flipped(tmp_path: Path) -> None:
    model = write_llama(tmp_path)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        with pytest.raises(AssertionError, match="does not hold"):
            flip_bits(process.pid, model, "model.norm.weight")
        process.kill()


def test_a_wedged_process_does_nothing_and_goes_on() -> None:
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdin is not None
    assert process.stdout is not None
    status = psutil.Process(process.pid).status
    with wedged(process.pid):
        wait_until(lambda: status() == psutil.STATUS_STOPPED, "it is stopped")
        process.stdin.write(b"a")
    assert process.stdout.read(1) == b"a"
    assert kill(process.pid)
    assert process.wait() == -9
    assert not kill(process.pid)
    process.communicate()
