/* A driver's NVML library of two GPUs, as far as pynvml calls it. What it answers is set by STUB_* variables. */
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, NOT_LOADED = 9, LOST = 15 };

static int gpus[2] = {0, 1};
static const char *uuids[2] = {"GPU-aaaaaaaa", "GPU-bbbbbbbb"};

static int is(const char *name) { return getenv(name) != NULL; }

int nvmlInitWithFlags(unsigned flags) { (void)flags; return is("STUB_NOT_LOADED") ? NOT_LOADED : OK; }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { return code == NOT_LOADED ? "Driver Not Loaded" : "Some error"; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **gpu) {
    if (index > 1) return INVALID;
    *gpu = &gpus[index];
    return OK;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **gpu) {
    for (int i = 0; i < 2; i++)
        if (strcmp(uuid, uuids[i]) == 0) return nvmlDeviceGetHandleByIndex_v2(i, gpu);
    return NOT_FOUND;
}

int nvmlDeviceGetName(int *gpu, char *name, unsigned size) {
    if (is("STUB_LOST")) return LOST;
    strncpy(name, *gpu ? "Stub RTX 2" : "Stub RTX 1", size);
    return OK;
}

int nvmlSystemGetDriverVersion(char *version, unsigned size) { strncpy(version, "570.86.15", size); return OK; }

int nvmlDeviceGetMemoryInfo(int *gpu, unsigned long long *memory) {
    (void)gpu;
    memory[0] = 32607ULL << 20; /* total, free, used */
    memory[1] = 30000ULL << 20;
    memory[2] = 2607ULL << 20;
    return OK;
}

int nvmlDeviceGetUtilizationRates(int *gpu, unsigned *rates) {
    (void)gpu;
    rates[0] = 87;
    rates[1] = 12;
    return is("STUB_SLICE") ? UNSUPPORTED : OK;
}

int nvmlDeviceGetTemperature(int *gpu, unsigned sensor, unsigned *celsius) {
    *celsius = 61 + *gpu + sensor;
    return OK;
}

int nvmlDeviceGetPowerUsage(int *gpu, unsigned *milliwatts) {
    (void)gpu;
    *milliwatts = 431250;
    return is("STUB_SLICE") ? UNSUPPORTED : OK;
}
