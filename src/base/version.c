#include "base/version.h"

/* The build system defines both for this file alone: a new commit compiles one file. */
const char *qp_version(void)
{
    return QUIPU_VERSION " (" QUIPU_REVISION ")";
}
