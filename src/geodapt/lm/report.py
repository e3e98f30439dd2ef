"""What the table of a language model's run shows: its figures on text and on questions."""

from geodapt.pages.columns import ACCURACY, PERPLEXITY, Column, as_count, as_percent, as_score
from geodapt.pages.section import SystemPage

PAGE = SystemPage(
    metrics=(
        ACCURACY,
        Column("accuracy_norm", "Accuracy by byte", as_percent, "%", short="Acc. by\nbyte"),
    ),
    costs=(
        PERPLEXITY,
        Column("bits_per_byte", "Bits per byte", as_score, cost=True),
        Column("tokens_per_second", "Speed", as_count, "tokens/s"),
    ),
)
