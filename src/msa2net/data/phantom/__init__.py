"""Synthetic cases that look like the real thing, for demonstrations and tests.

They are drawn, not measured: of no medical meaning, and free of anybody's data. Each is a
function of (seed, index) alone.
"""

from msa2net.data.phantom.ct import ABDOMEN_LABELS, abdomen
from msa2net.data.phantom.skin import SKIN_LABELS, skin_lesion

__all__ = ["ABDOMEN_LABELS", "SKIN_LABELS", "abdomen", "skin_lesion"]
