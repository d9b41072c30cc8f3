"""Questions for the bundled demo model: what it is trained on, and what it is scored on.

`held_out_questions` is the score's set. The rest of the package is the synthetic corpus that
`scripts/train_demo_model.py` trains on; it holds no third-party text and imports nothing heavy.
"""

from .held_out import held_out_questions
from .question import Language, Question

__all__ = ["Language", "Question", "held_out_questions"]
