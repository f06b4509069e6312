#include "base/version.h"

#include <stdio.h>
#include <string.h>

/* The build system defines both for this file alone: a new commit compiles one file. */
const char *qp_version(void)
{
    return QUIPU_VERSION " (" QUIPU_REVISION ")";
}

bool qp_version_asked(const char *program, int argc, char **argv)
{
    if (argc != 2 || strcmp(argv[1], "--version") != 0)
        return false;
    printf("%s %s\n", program, qp_version());
    return true;
}
