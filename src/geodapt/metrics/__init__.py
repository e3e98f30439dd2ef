"""How good a model is, in the field's usual figures."""

from geodapt.metrics.ranking import RankingMetrics, ranking_metrics, target_ranks

__all__ = ["RankingMetrics", "ranking_metrics", "target_ranks"]
