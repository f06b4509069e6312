# The whole recipe as one job:
#   sbatch jobscripts/slurm/quipu.sbatch input/ppo-stackexchange/rlhf.chain.sh
#   qsub -v DECK=input/ppo-stackexchange/rlhf.chain.sh jobscripts/pbs/quipu.pbs
# Sourced by the job scripts, stage after stage; what is done passes at once.
# shellcheck shell=bash
deck input/sft-stackexchange/sft.cfg
merge base/base.h5 runs/sft-stackexchange/adapter base/stack-sft.h5
deck input/reward-stackexchange/reward.cfg
deck input/ppo-stackexchange/ppo.cfg
merge base/stack-sft.h5 runs/ppo-stackexchange/adapter base/stack-rl.h5
