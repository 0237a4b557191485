"""Sequence numbers."""

import unittest

from raft_host.session import Numbers


class SequenceNumbers(unittest.TestCase):
    def test_only_what_has_all_answers_below_it_is_acknowledged(self) -> None:
        numbers = Numbers()
        self.assertEqual([numbers.take() for _ in range(4)], [1, 2, 3, 4])
        self.assertEqual(numbers.acknowledged(), 0)
        for number, acknowledged in ((2, 0), (4, 0), (1, 2), (3, 4)):
            numbers.done(number)
            self.assertEqual(numbers.acknowledged(), acknowledged)
        self.assertEqual(numbers.take(), 5)
