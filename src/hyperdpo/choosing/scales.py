"""How far the scale c and the share λ go wherever they are searched or moved: ``choose`` and the explorer."""

from __future__ import annotations

#: Grid of scales. At 16, the last, 15/16 of every difference of scores is the base's; at 0.5, the first, scores are
#: twice as far from the base as those that were trained.
SCALES = (0.5, 0.7, 1.0, 1.4, 2.0, 4.0, 8.0, 16.0)
#: The least and the largest.
SCALE_ENDS = SCALES[0], SCALES[-1]
#: Grid of the main label's share, for expected gains.
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 0.95)
#: The least and the largest that it is moved to.
SHARE_ENDS = 0.0, 0.99
