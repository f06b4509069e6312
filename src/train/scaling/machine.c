#include "train/scaling/machine.h"

#include <string.h>

#include "base/mem.h"

#define N_KEYS(table) ((int)(sizeof(table) / sizeof((table)[0])))
#define MOST 1e9

#define FIELD(type, member) QP_DECK_FIELD(type, qp_machine_whole_t, member)
static const qp_deck_key_t machine_keys[] = {
    {"machine.name", FIELD(QP_DECK_STRING, name), NULL, 0, 0, NULL, "", "What the tables call it.",
     QP_DECK_REQUIRED},
    {"machine.nodes", FIELD(QP_DECK_INT, nodes), NULL, 1, 1e6, NULL, "nodes",
     "Nodes that a job can have.", QP_DECK_REQUIRED},
};
static const qp_deck_group_t machine_group = {"machine", "The whole machine.", NULL, machine_keys,
                                              N_KEYS(machine_keys)};
#undef FIELD

#define FIELD(type, member) QP_DECK_FIELD(type, qp_machine_node_t, member)
static const qp_deck_key_t node_keys[] = {
    {"node.processors", FIELD(QP_DECK_INT, processors), NULL, 1, 1024, NULL, "",
     "Processors of a node, each for one rank: GPUs, sockets or parts of them.", QP_DECK_REQUIRED},
    {"node.ranks", FIELD(QP_DECK_INT, ranks), "0", 0, 1024, NULL, "ranks",
     "Ranks on a node, of which more than processors share them; 0: one for each processor.", 0},
    {"node.memory", FIELD(QP_DECK_FLOAT, memory), NULL, 1e-3, MOST, NULL, "GB",
     "Host memory that a job can use.", QP_DECK_REQUIRED},
    {"node.bandwidth", FIELD(QP_DECK_FLOAT, bandwidth), "0", 0, MOST, NULL, "GB/s",
     "Memory bandwidth of all processors together, where they share it; 0: each has its own.", 0},
    {"node.latency", FIELD(QP_DECK_FLOAT, latency), "1.0", 0, MOST, NULL, "us",
     "Latency of a message between two ranks of a node.", 0},
    {"node.link", FIELD(QP_DECK_FLOAT, link), NULL, 1e-6, MOST, NULL, "GB/s",
     "What a rank sends to the others of its node: NVLink, PCIe, or copies in memory.",
     QP_DECK_REQUIRED},
};
static const qp_deck_group_t node_group = {"node", "A node; GB are 10^9 bytes.", NULL, node_keys,
                                           N_KEYS(node_keys)};
#undef FIELD

#define FIELD(type, member) QP_DECK_FIELD(type, qp_machine_processor_t, member)
static const qp_deck_key_t processor_keys[] = {
    {"processor.kind", FIELD(QP_DECK_CHOICE, kind), NULL, 0, 0, "cpu|cuda", "",
     "Which device.backend computes.", QP_DECK_REQUIRED},
    {"processor.cores", FIELD(QP_DECK_INT, cores), "1", 1, 1024, NULL, "",
     "Cores of a CPU: the threads of a rank.", 0},
    {"processor.int8", FIELD(QP_DECK_FLOAT, int8), NULL, 1e-6, MOST, NULL, "10^12 operations/s",
     "Peak of dense int8 products.", QP_DECK_REQUIRED},
    {"processor.bf16", FIELD(QP_DECK_FLOAT, bf16), "0", 0, MOST, NULL, "10^12 operations/s",
     "Peak of dense bf16 products; 0: it has no instructions for them, and a run whose "
     "device.compute is \"auto\" computes in fp32.",
     0},
    {"processor.fp32", FIELD(QP_DECK_FLOAT, fp32), NULL, 1e-6, MOST, NULL, "10^12 operations/s",
     "Peak of fp32 products.", QP_DECK_REQUIRED},
    {"processor.memory", FIELD(QP_DECK_FLOAT, memory), "0", 0, 1e6, NULL, "GB", "Memory of a GPU.",
     0},
    {"processor.bandwidth", FIELD(QP_DECK_FLOAT, bandwidth), NULL, 1e-6, MOST, NULL, "GB/s",
     "Bandwidth to its memory.", QP_DECK_REQUIRED},
};
static const qp_deck_group_t processor_group = {
    "processor", "What one rank computes on: a GPU, or cores of a CPU.", NULL, processor_keys,
    N_KEYS(processor_keys)};
#undef FIELD

#define FIELD(type, member) QP_DECK_FIELD(type, qp_machine_network_t, member)
static const qp_deck_key_t network_keys[] = {
    {"network.latency", FIELD(QP_DECK_FLOAT, latency), "2.0", 0, MOST, NULL, "us",
     "Latency of a message between two nodes.", 0},
    {"network.bandwidth", FIELD(QP_DECK_FLOAT, bandwidth), "0", 0, MOST, NULL, "GB/s",
     "What all network cards of a node send together, and receive; wanted where there are several "
     "nodes.",
     0},
    {"network.message", FIELD(QP_DECK_FLOAT, message), "0.5", 0, MOST, NULL, "us",
     "Time that a rank needs for each message beside its bytes.", 0},
};
static const qp_deck_group_t network_group = {"network", "Between nodes.", NULL, network_keys,
                                              N_KEYS(network_keys)};
#undef FIELD

#define FIELD(type, member) QP_DECK_FIELD(type, qp_machine_storage_t, member)
static const qp_deck_key_t storage_keys[] = {
    {"storage.read", FIELD(QP_DECK_FLOAT, read), NULL, 1e-6, MOST, NULL, "GB/s",
     "What a node reads of the file system: the base, once at each start.", QP_DECK_REQUIRED},
    {"storage.write", FIELD(QP_DECK_FLOAT, write), NULL, 1e-6, MOST, NULL, "GB/s",
     "What a node writes: checkpoints.", QP_DECK_REQUIRED},
    {"storage.read_all", FIELD(QP_DECK_FLOAT, read_all), "0", 0, MOST, NULL, "GB/s",
     "What all nodes together read; 0: no limit.", 0},
    {"storage.write_all", FIELD(QP_DECK_FLOAT, write_all), "0", 0, MOST, NULL, "GB/s",
     "What all nodes together write; 0: no limit.", 0},
};
static const qp_deck_group_t storage_group = {"storage", "Where bases and runs are.", NULL,
                                              storage_keys, N_KEYS(storage_keys)};
#undef FIELD

#define FIELD(type, member) QP_DECK_FIELD(type, qp_machine_reached_t, member)
static const qp_deck_key_t reached_keys[] = {
    {"reached.int8", FIELD(QP_DECK_FLOAT, int8), "0", 0, 1, NULL, "",
     "Share of processor.int8 in linears of an int8 base; 0: 0.74 on a CPU, 0.55 on a GPU.", 0},
    {"reached.float", FIELD(QP_DECK_FLOAT, float_), "0", 0, 1, NULL, "",
     "Share of processor.bf16 or fp32 in linears of other bases; 0: 0.93, 0.65.", 0},
    {"reached.adapter", FIELD(QP_DECK_FLOAT, adapter), "0", 0, 1, NULL, "",
     "The same in products of the adapter; 0: 0.4, 0.3.", 0},
    {"reached.attention", FIELD(QP_DECK_FLOAT, attention), "0", 0, 1, NULL, "",
     "The same in attention, operations that a mask drops not counted; 0: 0.8, 0.35.", 0},
    {"reached.head", FIELD(QP_DECK_FLOAT, head), "0", 0, 1, NULL, "",
     "The same in the LM head; 0: 0.94, 0.6.", 0},
    {"reached.rows", FIELD(QP_DECK_FLOAT, rows), "0", 0, 100, NULL, "",
     "Share of processor.bandwidth in elementwise work; above 1 where rows stay in a CPU's caches; "
     "0: "
     "0.45, 0.7.",
     0},
    {"reached.weights", FIELD(QP_DECK_FLOAT, weights), "0", 0, 1, NULL, "",
     "Share of processor.bandwidth in products that wait for their operands, as those of "
     "generation do; 0: 0.75, 0.7.",
     0},
    {"reached.op", FIELD(QP_DECK_FLOAT, op), "-1", -1, MOST, NULL, "us",
     "What an op takes at least: starting threads, or a kernel; -1: 0, 4.", 0},
    {"reached.wait", FIELD(QP_DECK_FLOAT, wait), "-1", -1, MOST, NULL, "us",
     "Time until a rank sees that an exchange is over; -1: 70 (the helper thread sleeps between "
     "looks), 4.",
     0},
};
static const qp_deck_group_t reached_group = {
    "reached",
    "Which part of these figures the program reaches. The defaults of a CPU were measured "
    "(doc/performance.md); no card has confirmed those of a GPU.",
    NULL, reached_keys, N_KEYS(reached_keys)};
#undef FIELD

/* In the order of the help. */
static const qp_deck_group_t *const group[] = {&machine_group, &node_group,    &processor_group,
                                               &network_group, &storage_group, &reached_group};
static const size_t offset[] = {offsetof(qp_machine_t, machine),   offsetof(qp_machine_t, node),
                                offsetof(qp_machine_t, processor), offsetof(qp_machine_t, network),
                                offsetof(qp_machine_t, storage),   offsetof(qp_machine_t, reached)};
enum { N_GROUP = sizeof group / sizeof group[0] };

const qp_deck_group_t *const *qp_machine_groups(int *n_group)
{
    *n_group = N_GROUP;
    return group;
}

bool qp_machine_takes(const char *set)
{
    const size_t length = strcspn(set, ".=");
    for (int i = 0; i < N_GROUP; i++)
        if (strlen(group[i]->group) == length && strncmp(set, group[i]->group, length) == 0)
            return true;
    return false;
}

void qp_machine_complete(qp_machine_t *m)
{
    static const qp_machine_reached_t known[] = {
        [QP_PROCESSOR_CPU] = {0.74, 0.93, 0.4, 0.8, 0.94, 0.45, 0.75, 0.0, 70.0},
        [QP_PROCESSOR_CUDA] = {0.55, 0.65, 0.3, 0.35, 0.6, 0.7, 0.7, 4.0, 4.0}};
    const qp_machine_reached_t *of_kind = &known[m->processor.kind];
    double *share[] = {&m->reached.int8,      &m->reached.float_, &m->reached.adapter,
                       &m->reached.attention, &m->reached.head,   &m->reached.rows,
                       &m->reached.weights};
    const double taken[] = {of_kind->int8, of_kind->float_, of_kind->adapter, of_kind->attention,
                            of_kind->head, of_kind->rows,   of_kind->weights};
    for (size_t i = 0; i < sizeof share / sizeof *share; i++)
        if (*share[i] == 0.0)
            *share[i] = taken[i];
    if (m->reached.op < 0.0)
        m->reached.op = of_kind->op;
    if (m->reached.wait < 0.0)
        m->reached.wait = of_kind->wait;
    if (m->node.ranks == 0)
        m->node.ranks = m->node.processors;
    if (m->node.bandwidth == 0.0)
        m->node.bandwidth = m->processor.bandwidth * (double)m->node.processors;
}

/* What no single key can say. */
static qp_error_t check(const char *path, const qp_machine_t *m)
{
    const bool cuda = m->processor.kind == QP_PROCESSOR_CUDA;
    if (m->machine.nodes > 1 && m->network.bandwidth == 0.0)
        return QP_ERROR(QP_INPUT, "%s: network.bandwidth: several nodes need it", path);
    if (cuda && m->processor.memory == 0.0)
        return QP_ERROR(QP_INPUT, "%s: processor.memory: a GPU needs it", path);
    if (cuda && m->processor.bf16 == 0.0)
        return QP_ERROR(QP_INPUT, "%s: processor.bf16: a GPU needs it", path);
    if (cuda && m->node.ranks > m->node.processors)
        return QP_ERROR(QP_INPUT, "%s: node.ranks: a GPU takes one rank (node.processors = %lld)",
                        path, (long long)m->node.processors);
    return NULL;
}

qp_error_t qp_machine_read(const char *path, const char *const *sets, int n_set,
                           qp_machine_t *machine)
{
    *machine = (qp_machine_t){0};
    QP_TRY(qp_deck_read(NULL, path, group, N_GROUP, sets, n_set, &machine->deck));
    for (int i = 0; i < N_GROUP; i++)
        qp_deck_fill(machine->deck, group[i], (char *)machine + offset[i]);
    qp_error_t error = check(path, machine);
    if (error != NULL)
        qp_machine_fini(machine);
    else
        qp_machine_complete(machine);
    return error;
}

void qp_machine_fini(qp_machine_t *machine)
{
    qp_deck_destroy(&machine->deck);
}

char *qp_machine_deck_lines(const qp_machine_t *m)
{
    const char *compute = m->processor.bf16 > 0.0 ? "bf16" : "fp32";
    if (m->processor.kind == QP_PROCESSOR_CUDA)
        return qp_format("device.backend=cuda\ndevice.compute=%s\ndevice.memory=%.15g\n", compute,
                         m->processor.memory);
    return qp_format("device.backend=cpu\ndevice.compute=%s\ndevice.threads=%lld\n", compute,
                     (long long)m->processor.cores);
}
