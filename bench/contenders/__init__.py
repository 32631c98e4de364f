"""Training loops to race: each module's ``train(cell, pace, ...)`` trains until it is stopped."""
