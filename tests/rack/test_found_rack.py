"""A rack that puts itself together: found by multicast DNS, joined by token, encrypted, and back
after a power cut."""

import msgspec

from tbcluster.core import MicroBatch
from tbcluster.wire.messages import Step, encode_step
from tests.doubles.capture import Capture
from tests.doubles.namespaces import needs_namespaces
from tests.rack.racks import NUM_HIDDEN_BYTES, Answers, FoundRack, check_answers

pytestmark = needs_namespaces


def test_it_answers_as_mlx_lm_does_and_nobody_on_the_cable_can_read_it(
    rack: FoundRack, answers: Answers
) -> None:
    end = rack.ends["two"]
    with Capture(rack.network, "two", end.interface) as capture:
        check_answers(rack, answers)
    for prompt, text in answers.items():
        assert not capture.contains(text.encode())
        tokens = b"".join(map(msgspec.msgpack.encode, prompt))
        assert tokens in b"".join(encode_step(Step(0, 0, micro_batch=MicroBatch(0, prompt))))
        assert not capture.contains(tokens[:16])
    assert capture.num_bytes > NUM_HIDDEN_BYTES, "hidden states did not cross this cable"
    # Words of the data plane and of the control plane.
    for word in (b"step", b"result", b"float32", b"agent-beat", b"incarnation"):
        assert not capture.contains(word), word


def test_it_serves_again_after_a_power_cut(rack: FoundRack, answers: Answers) -> None:
    rack.cut_power()
    check_answers(rack, answers)
    states = rack.states()
    assert [states[node] for node in rack.nodes] == ["online"] * len(rack.nodes)
