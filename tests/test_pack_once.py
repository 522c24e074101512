"""What follows from constant tensors: made once, and held by whoever asked, whatever others hold and in whichever thread."""

import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from alps_fast.ops import _pack_once
from alps_fast.ops._pack_once import held, packed_once


def doubled(tensors):
    return [2 * v for v in tensors]


def test_holders_of_equal_content_are_told_apart():
    value = [torch.ones(3)]
    with held() as outer:
        inner = held()
        inside = inner.__enter__()
        packed_once(doubled, value)
        assert outer[0] is inside[0]
        inner.__exit__(None, None, None)
        packed_once(doubled, value)
    assert (len(outer), len(inside)) == (2, 1)
    packed_once(doubled, value)
    assert (len(outer), len(inside)) == (2, 1)


def test_a_holder_is_its_threads_own():
    entered, done = threading.Event(), threading.Event()

    def other():
        with held() as mine:
            entered.set()
            done.wait(60)
            return mine

    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(other)
        assert entered.wait(60)
        packed_once(doubled, [torch.ones(4)])
        done.set()
        assert theirs.result() == []


def test_threads_share_what_is_kept():
    """More tensors than are kept, in many threads: each finds its own."""
    sets = [[torch.full((5,), float(i))] for i in range(3 * _pack_once.MOST)]

    def look(i):
        return all(float(packed_once(doubled, sets[(i + k) % len(sets)])[0][0]) == 2 * ((i + k) % len(sets)) for k in range(200))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(look, range(4)))
    assert len(_pack_once._packed) <= _pack_once.MOST
