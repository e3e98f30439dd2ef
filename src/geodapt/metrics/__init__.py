"""How good a model is, in the field's usual figures."""

from geodapt.metrics.hierarchy import (
    hierarchical_retrieval,
    lexical_entailment,
    retrieve_chains,
    tau_d,
)
from geodapt.metrics.ranking import RankingMetrics, ranking_metrics, target_ranks
from geodapt.metrics.retrieval import recall_at

__all__ = [
    "RankingMetrics",
    "hierarchical_retrieval",
    "lexical_entailment",
    "ranking_metrics",
    "recall_at",
    "retrieve_chains",
    "target_ranks",
    "tau_d",
]
