from hyperdpo.alignment.conditioning import ConditioningConfig as ConditioningConfig
from hyperdpo.alignment.data.preferences import read_preferences as read_preferences
from hyperdpo.alignment.model import ConditionedLM as ConditionedLM
from hyperdpo.alignment.run import AlignRun as AlignRun
from hyperdpo.alignment.trainer import HyperDPOTrainer as HyperDPOTrainer
from hyperdpo.alignment.training_config import HyperDPOConfig as HyperDPOConfig
