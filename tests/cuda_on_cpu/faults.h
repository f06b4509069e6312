/**
 * \file faults.h
 * What tests ask the stand-in for CUDA to do wrong.
 */
#ifndef CUDA_ON_CPU_FAULTS_H
#define CUDA_ON_CPU_FAULTS_H

#ifdef __cplusplus
extern "C" {
#endif

/** The n-th launch from here on fails, as on a card that has not what the kernel wants; 0: none
 * does. Returns how far the one asked for before was away; 0: it has failed. */
int cuda_on_cpu_fail_launch(int n);

#ifdef __cplusplus
}
#endif

#endif
