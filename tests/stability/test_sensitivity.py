import math

import pytest

from redline.stability.sensitivity import lr_sensitivity


def test_the_mean_over_the_ladder_of_the_distance_to_the_best():
    # (4.5 + 4.0 + 5.0 + 6.0) / 4 - 4.0
    assert lr_sensitivity([4.5, 4.0, 5.0, 6.0], initial_loss=7.0) == pytest.approx(0.875)


def test_no_run_counts_for_more_than_the_loss_at_initialisation():
    # (4.0 + 7.0 + 7.0 + 7.0) / 4 - 4.0
    assert lr_sensitivity([4.0, 11.7, math.inf, math.nan], initial_loss=7.0) == pytest.approx(2.25)


def test_a_variant_that_diverges_everywhere_or_nowhere_differs_is_not_sensitive():
    assert lr_sensitivity([math.inf, math.nan], initial_loss=7.0) == 0.0
    assert lr_sensitivity([4.0, 4.0, 4.0], initial_loss=7.0) == 0.0


def test_an_empty_ladder_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        lr_sensitivity([], initial_loss=7.0)
