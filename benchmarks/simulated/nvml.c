/* A libnvidia-ml.so.1 that lists as many devices as SIMULATED_DEVICES says, all empty and held by nobody.
   What is asked and not defined here is "not supported" to pynvml. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_FOUND = 6, MOST = 8, DRIVER_CUDA = 12080 };
static const unsigned long long TOTAL = 80ULL << 30;
static int device[MOST];

typedef struct { unsigned version; unsigned long long total, reserved, unused, used; } Memory;
typedef struct { char legacy[16]; unsigned domain, bus, slot, id, subsystem; char bus_id[32]; } Pci;

static unsigned count(void) {
    const char *named = getenv("SIMULATED_DEVICES");
    unsigned devices = named ? (unsigned)atoi(named) : 0;
    return devices < MOST ? devices : MOST;
}

static unsigned place(void *handle) { return (unsigned)((int *)handle - device); }
static void write_uuid(unsigned index, char *text, unsigned length) {
    snprintf(text, length, "GPU-5111a7ed-0000-0000-0000-%012u", index);
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *devices) { *devices = count(); return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    if (index >= count()) return NOT_FOUND;
    *handle = &device[index];
    return SUCCESS;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    for (unsigned index = 0; index < count(); index++) {
        char own[64];
        write_uuid(index, own, sizeof own);
        if (!strcmp(own, uuid)) return nvmlDeviceGetHandleByIndex_v2(index, handle);
    }
    return NOT_FOUND;
}
int nvmlDeviceGetUUID(void *handle, char *text, unsigned length) {
    write_uuid(place(handle), text, length);
    return SUCCESS;
}
int nvmlDeviceGetName(void *handle, char *text, unsigned length) {
    (void)handle;
    snprintf(text, length, "Simulated");
    return SUCCESS;
}
int nvmlDeviceGetMemoryInfo_v2(void *handle, Memory *memory) {
    (void)handle;
    memory->total = memory->unused = TOTAL;
    memory->reserved = memory->used = 0;
    return SUCCESS;
}
int nvmlDeviceGetPciInfo_v3(void *handle, Pci *pci) {
    memset(pci, 0, sizeof *pci);
    pci->bus = place(handle) + 1;
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", pci->bus);
    return SUCCESS;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *processes, void *told) {
    (void)handle;
    (void)told;
    *processes = 0;
    return SUCCESS;
}
int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    snprintf(text, length, "0.0 (simulated)");
    return SUCCESS;
}
int nvmlSystemGetCudaDriverVersion(int *version) { *version = DRIVER_CUDA; return SUCCESS; }
