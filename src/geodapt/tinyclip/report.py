"""What a CLIP run's table shows: how well captions are found."""

from geodapt.pages.columns import RANKING
from geodapt.pages.section import SystemPage

PAGE = SystemPage(metrics=RANKING)
