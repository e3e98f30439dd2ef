from .hierarchy import hierarchical_retrieval as hierarchical_retrieval
from .hierarchy import lexical_entailment as lexical_entailment
from .hierarchy import retrieve_chains as retrieve_chains
from .hierarchy import tau_d as tau_d
from .ranking import RankingMetrics as RankingMetrics
from .ranking import ranking_metrics as ranking_metrics
from .ranking import target_ranks as target_ranks
from .retrieval import recall_at as recall_at
