from geodapt.pages.columns import RANKING
from geodapt.pages.section import SystemPage

PAGE = SystemPage(metrics=RANKING)
