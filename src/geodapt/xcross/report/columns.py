"""The figures that methods are judged by: of rankings, and of classifications."""

from geodapt.pages.columns import ACCURACY, RANKING, Column, as_percent

METRICS = (*RANKING, ACCURACY, Column("macro_f1", "Macro F1", as_percent, "%"))
