"""All parameters as one typed tree: an unknown key anywhere, or two values that contradict each other, is refused at once.

Kedro validates the blocks that nodes ask for; a misspelt block name would be nobody's, and pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from reelrank.buckets import EngineOptions
from reelrank.features.bursts import BurstOptions
from reelrank.features.candidate_features import CandidateOptions
from reelrank.features.candidate_sets import CandidateSetOptions
from reelrank.features.histories import HistoryOptions
from reelrank.features.modal import ModalOptions, ProxyOptions
from reelrank.features.rewards import R_MAX, RewardOptions
from reelrank.features.session_stats import SessionOptions
from reelrank.features.splits import TIME_RULES, SplitOptions
from reelrank.features.temporal_graph import NeighbourOptions
from reelrank.features.value_encoder import ValueFeatureOptions
from reelrank.freshness import FreshnessOptions
from reelrank.options import Options
from reelrank.pipelines.ab_test.run_options import ABTestParameters, ABTestSettings
from reelrank.pipelines.compress.options import CompressParameters
from reelrank.pipelines.experiments.options import ExperimentsParameters
from reelrank.pipelines.feedback_simulator.run_options import FeedbackSimulatorParameters
from reelrank.pipelines.head_weights.debias import DebiasOptions
from reelrank.pipelines.head_weights.diagnostics import DiagnosticOptions
from reelrank.pipelines.head_weights.options import (
    AlternativeOptions,
    InferenceOptions,
    NullOptions,
    SearchOptions,
    SoftOptions,
)
from reelrank.pipelines.head_weights.residual import ResidualOptions
from reelrank.pipelines.head_weights.run_options import (
    MainEmbedding,
    PublishedOptions,
    RankedSetOptions,
    VariantOptions,
)
from reelrank.pipelines.head_weights.selectivity import SelectivityOptions
from reelrank.pipelines.ingestion.options import (
    EventsRaw,
    KuaiRandRaw,
    KuaiRecRaw,
    KuaiSARRaw,
    WeiboRaw,
)
from reelrank.pipelines.mmrf.run_options import MMRFParameters, MMRFSettings, PublishedTable
from reelrank.pipelines.mt_dqn.options import (
    ConcatModalOptions,
    EvaluateOptions,
    LearningOptions,
    ListOptions,
    MTDQNOptions,
    PopularityOptions,
    PredictOptions,
    SizeOptions,
    VanillaDQNOptions,
)
from reelrank.pipelines.mt_dqn.study_options import NOTHING, Setting
from reelrank.pipelines.mt_dqn.study_options import StudyOptions as MTDQNStudyOptions
from reelrank.pipelines.mt_dqn.study_options import changed as changed_setting
from reelrank.pipelines.ope_validity.options import (
    BanditOptions,
    MatrixOptions,
    RandomLogOptions,
    RankingOptions,
)
from reelrank.pipelines.reporting.options import ReportingParameters
from reelrank.pipelines.ruie.run_options import RuieParameters, RuieSettings
from reelrank.pipelines.tuning.options import TuningParameters
from reelrank.pipelines.value_model.options import (
    EdgeOptions,
    EvaluationOptions,
    FittingOptions,
    GnnOptions,
    StudyOptions,
    TargetOptions,
    ValueModels,
)
from reelrank.sources.download import DownloadOptions
from reelrank.sources.ingest import LogOptions
from reelrank.tracking import TrackingOptions
from reelrank.training.options import TrainOptions
from reelrank.worlds.events_options import EventsWorldOptions
from reelrank.worlds.kuairand_options import WorldOptions as KuaiRandWorldOptions
from reelrank.worlds.kuairec_options import WorldOptions as KuaiRecWorldOptions
from reelrank.worlds.kuaisar_options import WorldOptions as KuaiSARWorldOptions
from reelrank.worlds.weibo_options import WeiboWorldOptions

Command = Annotated[str, Field(description="shown in the report")]
WorkDir = Annotated[str, Field(description="folder of unfinished training runs")]


class SourceParameters(Options):
    """What every source's block has."""

    ingest: LogOptions
    bursts: BurstOptions
    split: SplitOptions
    history: HistoryOptions
    sessions: SessionOptions
    proxy: ProxyOptions
    modal: ModalOptions
    neighbours: NeighbourOptions
    candidates: CandidateSetOptions


class KuaiRandParameters(SourceParameters):
    """Block ``kuairand``."""

    raw: KuaiRandRaw


class KuaiRecParameters(SourceParameters):
    """Block ``kuairec``."""

    raw: KuaiRecRaw


class KuaiSARParameters(SourceParameters):
    """Block ``kuaisar``."""

    raw: KuaiSARRaw


class WeiboParameters(SourceParameters):
    """Block ``weibo``."""

    raw: WeiboRaw


class WeiboPostsParameters(Options):
    """Block ``weibo_posts``: Tianchi's files have no viewers, so no features of users."""

    raw: WeiboRaw
    ingest: LogOptions


class EventsParameters(SourceParameters):
    """Block ``events``."""

    raw: EventsRaw


class WorldParameters(Options):
    """Block ``worlds``."""

    kuairand: KuaiRandWorldOptions
    kuairec: KuaiRecWorldOptions
    kuaisar: KuaiSARWorldOptions
    weibo: WeiboWorldOptions
    events: EventsWorldOptions


class MTDQNModels(Options):
    """Block ``mt_dqn.models``."""

    mt_dqn: MTDQNOptions
    concat_modal: ConcatModalOptions
    vanilla_dqn: VanillaDQNOptions
    popularity: PopularityOptions


class MTDQNParameters(Options):
    """Block ``mt_dqn``."""

    command: Command
    work_dir: WorkDir
    reward: RewardOptions
    lists: ListOptions
    learning: LearningOptions
    training: TrainOptions
    models: MTDQNModels
    prediction: PredictOptions
    evaluation: EvaluateOptions
    sizes: SizeOptions
    studies: MTDQNStudyOptions = Field(description="MT-02 … MT-16 as cells")

    @model_validator(mode="after")
    def _cells_can_be_made(self) -> Self:
        own = Setting("mt_dqn", self.models.mt_dqn, self.learning, self.training, self.reward, NOTHING)  # fmt: skip
        for experiment, cells in self.studies.cells.items():
            for name, cell in cells.items():
                try:
                    changed_setting(own, cell)
                except ValueError as error:
                    raise ValueError(f"studies.cells.{experiment}.{name}: {error}") from error
        return self

    @model_validator(mode="after")
    def _agree(self) -> Self:
        reward, learning = self.reward, self.learning
        if reward.gamma != learning.gamma:
            raise ValueError(
                f"reward.gamma {reward.gamma} and learning.gamma {learning.gamma} must be equal: set both"
            )
        largest = R_MAX + reward.lambda_retention + reward.lambda_interest
        if learning.r_max < largest - 1e-9:
            raise ValueError(
                f"learning.r_max {learning.r_max} is below the largest reward {R_MAX} + λ1 + λ2 = {largest}"
            )
        if learning.link_weight and not self.models.mt_dqn.link_head:
            raise ValueError(
                "learning.link_weight > 0 needs models.mt_dqn.link_head: true (or set the weight to 0)"
            )
        if self.models.mt_dqn.tgnn.social is not None:
            raise ValueError(
                "models.mt_dqn.tgnn.social must be null: the run's own model reads no social edges; describe it as a cell of MT-07"
            )
        if self.prediction.top < self.evaluation.k:
            raise ValueError(
                f"prediction.top {self.prediction.top} must be at least evaluation.k {self.evaluation.k}"
            )
        return self


class MTDQNSettings(Options):
    """Block ``mt_dqn_weibo``: all else is in ``mt_dqn``."""

    command: Command


class MTDQNSplitSettings(MTDQNSettings):
    """Block ``mt_dqn_kuairec``: all else is in ``mt_dqn``."""

    split: SplitOptions

    @model_validator(mode="after")
    def _cuts_in_time(self) -> Self:
        if self.split.rule not in TIME_RULES:
            raise ValueError(
                f"split.rule {self.split.rule} does not cut all users at the same times: set one of {', '.join(TIME_RULES)}"
            )
        return self


class OPEValidityParameters(Options):
    """Block ``ope_validity``."""

    command: Command
    bandit: BanditOptions
    matrix: MatrixOptions
    random_log: RandomLogOptions
    rankings: RankingOptions


class ValueModelParameters(Options):
    """Block ``value_model``."""

    command: Command
    work_dir: WorkDir
    edges: EdgeOptions
    features: ValueFeatureOptions
    models: ValueModels
    fitting: FittingOptions
    evaluation: EvaluationOptions
    studies: StudyOptions
    targets: TargetOptions

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for width in (64, 128):
            model: GnnOptions = getattr(self.models, f"gnn_{width}")
            if model.graph != "honest":
                raise ValueError(
                    f"models.gnn_{width}.graph must be honest: the poster's graph is a leak, "
                    "which GV-01 and GV-02 measure by themselves"
                )
        if self.features.encoding != "typed" or self.features.clock != "local":
            raise ValueError(
                "features.encoding must be typed and features.clock local: the poster's ways are cells of GV-01 and GV-02"
            )
        return self


class HeadWeightsParameters(Options):
    """Block ``head_weights``."""

    command: Command
    ranking: RankedSetOptions
    candidates: CandidateOptions
    embedding: MainEmbedding = Field(description="of the videos, for coherence and variety")
    search: SearchOptions
    soft: SoftOptions
    inference: InferenceOptions
    nulls: NullOptions
    alternatives: AlternativeOptions
    variants: VariantOptions
    residuals: ResidualOptions
    diagnostics: DiagnosticOptions
    selectivity: SelectivityOptions
    debias: DebiasOptions
    published: PublishedOptions


class Parameters(Options):
    """Everything in ``conf/*/parameters`` and on the command line."""

    engine: EngineOptions
    kuairand: KuaiRandParameters
    kuairec: KuaiRecParameters
    kuaisar: KuaiSARParameters
    weibo: WeiboParameters
    weibo_posts: WeiboPostsParameters
    events: EventsParameters
    worlds: WorldParameters
    mt_dqn: MTDQNParameters
    mt_dqn_weibo: MTDQNSettings
    mt_dqn_kuairec: MTDQNSplitSettings
    compress: CompressParameters
    ope_validity: OPEValidityParameters
    value_model: ValueModelParameters
    head_weights: HeadWeightsParameters
    mmrf: MMRFParameters
    mmrf_top_videos: MMRFSettings
    mmrf_kuairec: MMRFSettings
    mmrf_published: PublishedTable
    ab_test: ABTestParameters
    ab_test_kuairand: ABTestSettings
    ruie: RuieParameters
    feedback_simulator: FeedbackSimulatorParameters
    ruie_kuairand: RuieSettings
    ruie_events: RuieSettings
    freshness: FreshnessOptions
    download: DownloadOptions
    experiments: ExperimentsParameters
    reporting: ReportingParameters
    tuning: TuningParameters
    tracking: TrackingOptions
    system: str = Field("ruie", description="tuning, command line: which of its systems")
    id: str | list[str] = Field("all", description="experiments: ids or families")
    dry: bool = Field(False, description="experiments: print the plan, run nothing")
    tables_root: str | None = Field(
        None, description="set by experiments: folder of the tables of a cell"
    )
    models_root: str | None = Field(
        None, description="set by tuning: folder of the models of a trial"
    )
    source: str | None = Field(None, description="command line only: data set to download")
    variant: str | None = Field(None, description="command line only: its release")
    raw_root: str | None = Field(None, description="command line only: folder of official files")
    data_root: str | None = Field(None, description="command line only: folder of all outputs")


def check_parameters(parameters: Mapping[str, Any]) -> list[str]:
    """What is wrong with the parameters, a sentence with its path each; empty when all is well."""
    try:
        Parameters.model_validate(dict(parameters))
    except ValidationError as error:
        return [
            f"{'.'.join(map(str, found['loc'])) or 'parameters'}: {found['msg']} (given: {found['input']!r})"[:400]
            for found in error.errors()
        ]  # fmt: skip
    return []
