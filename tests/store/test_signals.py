import signal
import threading

import pytest

from featx.store.signals import HeldSignals


def hold(reached, *, check):
    with HeldSignals() as held:
        held.check()
        signal.raise_signal(signal.SIGINT)
        reached.append("after the signal")
        if check:
            held.check()
        reached.append("the end")


@pytest.mark.parametrize(
    ("check", "expected"), [(False, ["after the signal", "the end"]), (True, ["after the signal"])]
)
def test_ctrl_c_waits_for_the_end_of_the_block_or_for_check(check, expected):
    reached = []
    with pytest.raises(KeyboardInterrupt):
        hold(reached, check=check)
    assert reached == expected
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_sigterm_is_held_and_called_once(monkeypatch):
    calls = []
    old = signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    try:
        with HeldSignals() as held:
            signal.raise_signal(signal.SIGTERM)
            assert calls == []
            held.check()
            assert calls == [signal.SIGTERM]
        assert calls == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, old)


def test_nothing_is_held_in_other_threads():
    handlers = []

    def work():
        with HeldSignals():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]
