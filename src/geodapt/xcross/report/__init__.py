"""What an X-Cross run adds to its page: data efficiency, contributions, explained predictions."""

from geodapt.pages.section import SystemPage
from geodapt.xcross.report.contributions import contributions_section
from geodapt.xcross.report.efficiency import METRICS, efficiency_section
from geodapt.xcross.report.predictions import predictions_section

PAGE = SystemPage(
    metrics=METRICS,
    sections=(efficiency_section, contributions_section, predictions_section),
)
