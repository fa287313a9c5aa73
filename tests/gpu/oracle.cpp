// Reads lines "threads registers shared_memory"; prints the blocks on an SM that the CUDA toolkit's
// header computes, and the mask of what limits them.
#include <climits>
#include <cstdio>
#include <cstring>
#include <cuda_occupancy.h>

int main(int, char **argv) {
    cudaOccDeviceProp device;
    long shared_per_block;
    if (sscanf(argv[1], "%d %d %d %d %d %d %zu %zu %ld %zu", &device.computeMajor,
               &device.computeMinor, &device.maxThreadsPerBlock,
               &device.maxThreadsPerMultiprocessor, &device.regsPerBlock,
               &device.regsPerMultiprocessor, &device.sharedMemPerMultiprocessor,
               &device.sharedMemPerBlockOptin, &shared_per_block,
               &device.reservedSharedMemPerBlock) != 10)
        return 1;
    device.warpSize = 32;
    device.numSms = 1;
    device.sharedMemPerBlock = shared_per_block;
    int threads, registers;
    size_t shared;
    while (scanf("%d %d %zu", &threads, &registers, &shared) == 3) {
        cudaOccFuncAttributes kernel;
        memset(&kernel, 0, sizeof kernel);
        kernel.maxThreadsPerBlock = INT_MAX;
        kernel.numRegs = registers;
        kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
        kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
        kernel.maxDynamicSharedSizeBytes = device.sharedMemPerBlockOptin;
        cudaOccDeviceState state;
        cudaOccResult result;
        cudaOccError error = cudaOccMaxActiveBlocksPerMultiprocessor(
            &result, &device, &kernel, &state, threads, shared);
        if (error != CUDA_OCC_SUCCESS)
            return 2;
        printf("%d %u\n", result.activeBlocksPerMultiprocessor, result.limitingFactors);
    }
}
