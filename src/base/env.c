#include "base/env.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/duration.h"
#include "base/log.h"

const char *qp_env(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

/* A number of the environment, or -1 when it is absent or not a number. */
static double env_number(const char *name)
{
    const char *text = qp_env(name);
    char *end = NULL;
    double value = text != NULL ? strtod(text, &end) : -1.0;
    return text != NULL && *end == '\0' ? value : -1.0;
}

double qp_env_walltime(const char **source)
{
    double end = env_number("SLURM_JOB_END_TIME");
    *source = "SLURM_JOB_END_TIME";
    if (end > 0.0)
        return end > (double)time(NULL) ? end - (double)time(NULL) : 0.0;
    *source = "PBS_WALLTIME";
    const char *limit = qp_env(*source);
    if (limit == NULL || qp_duration_parse(limit, &end))
        return limit != NULL ? end : -1.0;
    qp_log_warn("%s is \"%s\", which is no time: the run knows no limit", *source, limit);
    return -1.0;
}

/* The first number of a small file, or -1 ("max", absent). */
static int64_t file_number(const char *path)
{
    long long value = -1;
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return -1;
    if (fscanf(file, "%lld", &value) != 1)
        value = -1;
    fclose(file);
    return value;
}

/* A line "Name: N kB" of a file of /proc in bytes, or -1. */
static int64_t proc_bytes(const char *path, const char *name)
{
    char line[256];
    long long kib = -1;
    const size_t n = strlen(name);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return -1;
    while (kib < 0 && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, name, n) == 0 && line[n] == ':')
            kib = strtoll(line + n + 1, NULL, 10);
    fclose(file);
    return kib < 0 ? -1 : (int64_t)kib * 1024;
}

int64_t qp_env_memory_used(void)
{
    return proc_bytes("/proc/self/smaps_rollup", "Pss");
}

int64_t qp_env_memory_peak(void)
{
    const int64_t used = qp_env_memory_used();
    const int64_t resident = proc_bytes("/proc/self/smaps_rollup", "Rss");
    const int64_t peak = proc_bytes("/proc/self/status", "VmHWM");
    if (used < 0 || resident < 0 || peak < resident)
        return used;
    return peak - resident + used;
}

/* Limit and use of this process's cgroup, version 2 then 1, as containers and batch systems mount
 * it. */
static const struct {
    const char *limit, *used;
} cgroup_file[] = {
    {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
    {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"},
};

int64_t qp_env_memory_available(void)
{
    int64_t available = proc_bytes("/proc/meminfo", "MemAvailable");
    for (size_t i = 0; i < sizeof cgroup_file / sizeof cgroup_file[0]; i++) {
        int64_t limit = file_number(cgroup_file[i].limit), used = file_number(cgroup_file[i].used);
        if (limit > 0 && used >= 0 && (available < 0 || limit - used < available))
            available = limit > used ? limit - used : 0;
    }
    return available;
}
