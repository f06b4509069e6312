#include "compute/device_deck.h"

#include "compute/device.h"

static const qp_deck_key_t keys[] = {
    {.path = "device.backend",
     .type = QP_DECK_FIELD(QP_DECK_CHOICE, qp_device_config_t, backend),
     .value = "\"auto\"",
     .choices = "auto|cpu|cuda|check",
     .unit = "",
     .help = "Where the model computes; auto is cuda where the program was built with it and the "
             "node has a GPU that it can use, one rank per GPU, else cpu. check is a tool for "
             "developers: the CPU, late and in another order, with device memory that only ops can "
             "read.",
     .flags = QP_DECK_RESTART_OK},
    {.path = "device.compute",
     .type = QP_DECK_FIELD(QP_DECK_CHOICE, qp_device_config_t, compute),
     .value = "\"auto\"",
     .choices = "auto|bf16|fp32",
     .unit = "",
     .help =
         "Type of activations in products; auto is bf16 on a GPU and where the CPU has "
         "instructions for it (AVX-512 BF16, AMX), else fp32; fp32 is the reference mode. A run "
         "goes on in the type that it began in: name it where it moves between devices whose "
         "auto differs."},
    {.path = "device.recompute",
     .type = QP_DECK_FIELD(QP_DECK_CHOICE, qp_device_config_t, recompute),
     .value = "\"auto\"",
     .choices = "auto|none|layer",
     .unit = "",
     .help = "Recompute a layer in backward instead of keeping it; auto asks the memory plan.",
     .flags = QP_DECK_RESTART_OK},
    {.path = "device.memory",
     .type = QP_DECK_FIELD(QP_DECK_FLOAT, qp_device_config_t, memory),
     .value = "0",
     .min = 0,
     .max = 1e6,
     .unit = "GB",
     .help =
         "How much of a GPU's memory a run may use (GB are 10^9 bytes); 0 is all of it. In a dry "
         "run it stands for the GPU's own, so that a run can be planned for another card, or "
         "where there is none.",
     .flags = QP_DECK_RESTART_OK},
    {.path = "device.threads",
     .type = QP_DECK_FIELD(QP_DECK_INT, qp_device_config_t, threads),
     .value = "0",
     .min = 0,
     .max = 1024,
     .unit = "",
     .help = "CPU threads of a rank; 0 shares the node's cores among its ranks.",
     .flags = QP_DECK_RESTART_OK},
    {.path = "device.allreduce",
     .type = QP_DECK_FIELD(QP_DECK_CHOICE, qp_device_config_t, allreduce),
     .value = "\"auto\"",
     .choices = "auto|mpi|tree|nccl",
     .unit = "",
     .help =
         "How gradients are summed over ranks: mpi, through the host; tree, by NCCL's sends and "
         "receives, added in the order of mpi, with the same bits; nccl, by ncclAllReduce: its "
         "bits depend on the number of ranks and on the machine. auto is tree on GPUs, else "
         "mpi.",
     .flags = QP_DECK_RESTART_OK},
    {.path = "device.nccl_timeout",
     .type = QP_DECK_FIELD(QP_DECK_INT, qp_device_config_t, nccl_timeout),
     .value = "600",
     .min = 1,
     .max = 86400,
     .unit = "s",
     .help = "A sum by NCCL that takes longer ends the job: a rank is gone, or the network stalls.",
     .flags = QP_DECK_RESTART_OK},
};

const qp_deck_group_t qp_device_deck = {
    .group = "device",
    .help = "What the model computes on, and in which precision.",
    .methods = NULL,
    .keys = keys,
    .n_key = sizeof keys / sizeof keys[0],
};
