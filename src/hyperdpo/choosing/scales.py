"""How far the scale c goes wherever it is searched or moved: ``choose`` and the explorer."""

from __future__ import annotations

#: Grid of scales. At 16, the last, 15/16 of every difference of scores is the base's; at 0.5, the first, scores are
#: twice as far from the base as those that were trained.
SCALES = (0.5, 0.7, 1.0, 1.4, 2.0, 4.0, 8.0, 16.0)
#: The least and the largest.
SCALE_ENDS = SCALES[0], SCALES[-1]
