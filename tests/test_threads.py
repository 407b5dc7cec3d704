"""Pieces of work side by side."""

import threading

import pytest
import torch

from reelrank.threads import side_by_side


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_keep_the_order_of_the_pieces(threads):
    assert side_by_side(lambda piece: piece * piece, range(20)) == [n * n for n in range(20)]


def test_each_piece_counts_on_one_thread_and_torch_has_its_threads_back(threads):
    counted = side_by_side(lambda _: (threading.get_ident(), torch.get_num_threads()), range(4))
    assert {number for _, number in counted} == {1}
    assert torch.get_num_threads() == threads


def test_threads_come_back_after_an_error(threads):
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda piece: 1 // piece, [1, 0, 1])
    assert torch.get_num_threads() == threads
