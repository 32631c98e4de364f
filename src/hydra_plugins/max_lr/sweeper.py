from hydra.plugins.sweeper import Sweeper
class MaxLRSweeper(Sweeper):
    def setup(self, **k): pass
    def sweep(self, arguments): pass
