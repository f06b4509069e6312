/** \file version.h  The build's identity, written into every output. */
#ifndef QP_BASE_VERSION_H
#define QP_BASE_VERSION_H

#include <stdbool.h>

/** "0.1.0 (1a2b3c4)": version and revision. Static. */
const char *qp_version(void);

/** Prints "program 0.1.0 (1a2b3c4)" and returns true if --version is the only argument. */
bool qp_version_asked(const char *program, int argc, char **argv);

#endif
