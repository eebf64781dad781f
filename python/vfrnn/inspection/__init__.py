"""What recurrent layers do to their states: `inspect` computes it, `Inspection.draw` draws it.

`spectrum` has the mathematics of a step matrix, `memory` the gradient over the lag of the true recurrence, `grid` the
velocities of a field, `records` what training keeps after every epoch; the others draw. matplotlib is imported where
something is drawn.
"""

from vfrnn.inspection.grid import GridField
from vfrnn.inspection.inspection import Inspection, inspect
from vfrnn.inspection.layer import LayerInspection

__all__ = ["GridField", "Inspection", "LayerInspection", "inspect"]
