import torch

from redline.monitor.late_reader import LateReader


def test_a_steps_values_come_with_the_next_step():
    reader = LateReader()
    assert reader.push(0, [torch.tensor(1.5), torch.tensor(2.5)]) is None
    assert reader.push(1, [torch.tensor(3.5), torch.tensor(4.5)]) == (0, [1.5, 2.5])
    assert reader.push(2, [torch.tensor(5.5), torch.tensor(6.5)]) == (1, [3.5, 4.5])


def test_flush_gives_what_is_queued_once():
    reader = LateReader()
    assert reader.flush() is None
    reader.push(7, [torch.tensor(1.5)])
    assert reader.flush() == (7, [1.5])
    assert reader.flush() is None
    assert reader.push(8, [torch.tensor(2.5)]) is None


def test_a_scalar_overwritten_in_place_keeps_its_value():
    reader, loss = LateReader(), torch.tensor(1.5)
    reader.push(0, [loss])
    loss.fill_(9.0)
    assert reader.flush() == (0, [1.5])
