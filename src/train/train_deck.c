#include "train/settings.h"

#define N_KEYS(table) ((int)(sizeof(table) / sizeof((table)[0])))

#define FIELD(type, member) QP_DECK_FIELD(type, qp_job_config_t, member)
static const qp_deck_key_t job_keys[] = {
    {"job.method", FIELD(QP_DECK_CHOICE, method), NULL, 0, 0, "sft|reward|dpo|ppo|eval|generate",
     "",
     "What to do: supervised fine-tuning, a reward model from pairs, direct preference "
     "optimisation, "
     "PPO against a reward, a look at held-out data, or answers to prompts.",
     QP_DECK_REQUIRED},
    {"job.name", FIELD(QP_DECK_STRING, name), NULL, 0, 0, NULL, "",
     "Name of the run: its folder under job.output.",
     QP_DECK_REQUIRED | QP_DECK_RESTART_OK | QP_DECK_NAME},
    {"job.seed", FIELD(QP_DECK_INT, seed), "1", 0, 4294967295.0, NULL, "",
     "Seed of the adapter's start, the order of the data, dropout and sampling.", 0},
    {"job.restart", FIELD(QP_DECK_CHOICE, restart), "\"auto\"", 0, 0, "auto|never|require", "",
     "Continue from the newest complete checkpoint of the run's folder: if there is one, never, or "
     "there must be one.",
     QP_DECK_RESTART_OK},
    {"job.output", FIELD(QP_DECK_STRING, output), "\"runs\"", 0, 0, NULL, "",
     "Folder in which each run has its own folder.", QP_DECK_RESTART_OK | QP_DECK_NAME},
    {"job.stall_timeout", FIELD(QP_DECK_INT, stall_timeout), "1800", 0, 1e9, NULL, "s",
     "A rank that stands still for longer ends the job by its name (exit code 3). Longer than any "
     "single micro-batch, and than the pauses of a reward program; 0: wait for ever.",
     QP_DECK_RESTART_OK},
};
const qp_deck_group_t qp_job_deck = {"job", "What to do, and under which name.", NULL, job_keys,
                                     N_KEYS(job_keys)};
#undef FIELD

#define FIELD(type, member) QP_DECK_FIELD(type, qp_eval_config_t, member)
static const qp_deck_key_t eval_keys[] = {
    {"eval.every_steps", FIELD(QP_DECK_INT, every_steps), "0", 0, 1e12, NULL, "steps",
     "Loss on data.eval every so many steps; 0: only at start and end.", QP_DECK_RESTART_OK},
    {"eval.at_start", FIELD(QP_DECK_BOOL, at_start), "true", 0, 0, NULL, "",
     "Evaluate before the first step too.", QP_DECK_RESTART_OK},
    {"eval.at_end", FIELD(QP_DECK_BOOL, at_end), "true", 0, 0, NULL, "",
     "Evaluate after the last step too.", QP_DECK_RESTART_OK},
};
const qp_deck_group_t qp_eval_deck = {"eval", "Held-out data during training.",
                                      "sft|reward|dpo|ppo", eval_keys, N_KEYS(eval_keys)};
#undef FIELD

#define FIELD(type, member) QP_DECK_FIELD(type, qp_checkpoint_config_t, member)
static const qp_deck_key_t checkpoint_keys[] = {
    {"checkpoint.every_steps", FIELD(QP_DECK_INT, every_steps), "500", 0, 1e12, NULL, "steps",
     "A checkpoint every so many steps; 0: only when the run stops.", QP_DECK_RESTART_OK},
    {"checkpoint.keep", FIELD(QP_DECK_INT, keep), "3", 1, 1e6, NULL, "files",
     "Newest complete checkpoints that are kept.", QP_DECK_RESTART_OK},
    {"checkpoint.walltime", FIELD(QP_DECK_STRING, walltime), "\"auto\"", 0, 0, NULL, "s",
     "Time this start may take, longer than 0: seconds, m:ss, h:mm:ss, days-hh, days-hh:mm or "
     "days-hh:mm:ss (as sbatch has it, but that a number alone is seconds); auto: what Slurm or "
     "PBS "
     "says, else no limit.",
     QP_DECK_RESTART_OK},
    {"checkpoint.walltime_margin", FIELD(QP_DECK_STRING, walltime_margin), "\"auto\"", 0, 0, NULL,
     "s",
     "Stop with a checkpoint so long before that time, written likewise; auto: from measured steps "
     "and writes.",
     QP_DECK_RESTART_OK},
    {"checkpoint.stop_after_steps", FIELD(QP_DECK_INT, stop_after_steps), "0", 0, 1e12, NULL,
     "steps", "Stop with a checkpoint (exit code 10) after so many steps of this start; 0: off.",
     QP_DECK_RESTART_OK},
};
const qp_deck_group_t qp_checkpoint_deck = {"checkpoint", "Checkpoints and stopping early.",
                                            "sft|reward|dpo|ppo", checkpoint_keys,
                                            N_KEYS(checkpoint_keys)};
#undef FIELD

#define FIELD(type, member) QP_DECK_FIELD(type, qp_log_config_t, member)
static const qp_deck_key_t log_keys[] = {
    {"log.level", FIELD(QP_DECK_CHOICE, level), "\"info\"", 0, 0, "error|warn|info|stat|debug", "",
     "How much the log says; stat adds timers and memory.", QP_DECK_RESTART_OK},
    {"log.every_steps", FIELD(QP_DECK_INT, every_steps), "10", 1, 1e12, NULL, "steps",
     "A line in the log every so many steps.", QP_DECK_RESTART_OK},
    {"log.tensorboard", FIELD(QP_DECK_BOOL, tensorboard), "false", 0, 0, NULL, "",
     "Metrics of training for TensorBoard, too: event files in tensorboard/ of the run's folder.",
     QP_DECK_RESTART_OK},
};
const qp_deck_group_t qp_log_deck = {"log", "What a run says of itself.", NULL, log_keys,
                                     N_KEYS(log_keys)};
#undef FIELD

#define FIELD(type, member) QP_DECK_FIELD(type, qp_samples_config_t, member)
static const qp_deck_key_t samples_keys[] = {
    {"samples.prompts", FIELD(QP_DECK_STRINGS, prompts), NULL, 0, 0, NULL, "",
     "Prompts whose answers show what the model says now (samples.jsonl).",
     QP_DECK_OPTIONAL | QP_DECK_RESTART_OK},
    {"samples.every_steps", FIELD(QP_DECK_INT, every_steps), "0", 0, 1e12, NULL, "steps",
     "Answers every so many steps; 0: only at start and end.", QP_DECK_RESTART_OK},
    {"samples.max_new_tokens", FIELD(QP_DECK_INT, max_new_tokens), "64", 1, 1e6, NULL, "tokens",
     "Longest answer.", QP_DECK_RESTART_OK},
};
const qp_deck_group_t qp_samples_deck = {"samples", "Answers to a few prompts during training.",
                                         "sft|dpo|ppo", samples_keys, N_KEYS(samples_keys)};
#undef FIELD

#define FIELD(type, member) QP_DECK_FIELD(type, qp_prompts_config_t, member)
static const qp_deck_key_t prompts_keys[] = {
    {"prompts.input", FIELD(QP_DECK_STRING, input), NULL, 0, 0, NULL, "",
     "Rows to answer, as JSON lines or one JSON array: objects with \"prompt\" (text or a list of "
     "messages), \"messages\", \"conversations\" (ShareGPT) or \"instruction\" (Alpaca); what the "
     "assistant says at the end of a conversation is left out.",
     QP_DECK_REQUIRED | QP_DECK_PATH},
    {"prompts.output", FIELD(QP_DECK_STRING, output), NULL, 0, 0, NULL, "",
     "A line for each answer: the row as it stands, and \"completion\"; absent: answers.jsonl in "
     "the "
     "run's folder.",
     QP_DECK_OPTIONAL | QP_DECK_NAME},
    {"prompts.chat_template", FIELD(QP_DECK_STRING, chat_template), NULL, 0, 0, NULL, "",
     "File with the chat template (Jinja) that writes messages; absent: the base's own.",
     QP_DECK_OPTIONAL | QP_DECK_PATH},
};
const qp_deck_group_t qp_prompts_deck = {"prompts", "Files of job.method = \"generate\".",
                                         "generate", prompts_keys, N_KEYS(prompts_keys)};
#undef FIELD
