"""A training that is cut off."""

from recbole_kuaiformer.benchmarks.epoch_clock import EpochClock


class Unplugged(EpochClock):
    """The training ends before the epoch of the number ``before``."""

    before = 3

    def begin(self, epoch):
        super().begin(epoch)
        if epoch == self.before:
            raise KeyboardInterrupt
