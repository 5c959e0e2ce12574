/* A CUPTI that delivers made-up records: `copies.c` is linked against it where no GPU is. */
#include <cupti.h>
#include <stdlib.h>
#include <string.h>

static CUpti_BuffersCallbackRequestFunc request;
static CUpti_BuffersCallbackCompleteFunc complete;
static CUpti_TimestampCallbackFunc clock_of;

CUptiResult cuptiActivityRegisterTimestampCallback(CUpti_TimestampCallbackFunc function) {
    clock_of = function;
    return CUPTI_SUCCESS;
}

CUptiResult cuptiActivityRegisterCallbacks(CUpti_BuffersCallbackRequestFunc asked, CUpti_BuffersCallbackCompleteFunc done) {
    request = asked;
    complete = done;
    return CUPTI_SUCCESS;
}

CUptiResult cuptiActivityEnable(CUpti_ActivityKind kind) {
    (void)kind;
    return getenv("FAKE_REFUSES") ? CUPTI_ERROR_UNKNOWN : CUPTI_SUCCESS;
}

CUptiResult cuptiActivityFlushPeriod(uint32_t period) {
    (void)period;
    return CUPTI_SUCCESS;
}

CUptiResult cuptiGetCallbackName(CUpti_CallbackDomain domain, uint32_t id, const char **name) {
    static const char *names[] = {"cudaMemcpyAsync_v3020", "cudaStreamSynchronize_v3020", "cudaLaunchKernel_v7000"};
    (void)domain;
    *name = names[id % 3];
    return CUPTI_SUCCESS;
}

CUptiResult cuptiActivityGetNumDroppedRecords(CUcontext context, uint32_t stream, size_t *dropped) {
    (void)context, (void)stream;
    *dropped = getenv("FAKE_LOSES") ? 3 : 0;
    return CUPTI_SUCCESS;
}

/* Buffers of this fake are arrays of records of one size. */
typedef union {
    CUpti_Activity any;
    CUpti_ActivityMemcpy6 copy;
    CUpti_ActivityAPI call;
} Record;

CUptiResult cuptiActivityGetNextRecord(uint8_t *buffer, size_t valid, CUpti_Activity **record) {
    uint8_t *next = *record == NULL ? buffer : (uint8_t *)*record + sizeof(Record);
    if (next + sizeof(Record) > buffer + valid)
        return CUPTI_ERROR_MAX_LIMIT_REACHED;
    *record = (CUpti_Activity *)next;
    return CUPTI_SUCCESS;
}

static void deliver(unsigned number) {
    uint8_t *buffer;
    size_t size, most;
    request(&buffer, &size, &most);
    Record *records = (Record *)buffer;
    memset(records, 0, 4 * sizeof(Record));
    uint64_t now = clock_of();
    records[0].copy.kind = CUPTI_ACTIVITY_KIND_MEMCPY;
    records[0].copy.copyKind = CUPTI_ACTIVITY_MEMCPY_KIND_HTOD;
    records[0].copy.srcKind = CUPTI_ACTIVITY_MEMORY_KIND_PINNED;
    records[0].copy.dstKind = CUPTI_ACTIVITY_MEMORY_KIND_DEVICE;
    records[0].copy.flags = CUPTI_ACTIVITY_FLAG_MEMCPY_ASYNC;
    records[0].copy.bytes = 4096;
    records[0].copy.correlationId = number;
    records[0].copy.start = now, records[0].copy.end = now + 100;
    for (unsigned id = 0; id < 3; id++) {
        records[1 + id].call.kind = CUPTI_ACTIVITY_KIND_RUNTIME;
        records[1 + id].call.cbid = id;
        records[1 + id].call.correlationId = number;
        records[1 + id].call.start = now, records[1 + id].call.end = now + 10;
        records[1 + id].call.threadId = 1;
    }
    complete(NULL, 0, buffer, size, 4 * sizeof(Record));
}

CUptiResult cuptiActivityFlushAll(uint32_t flags) {
    const char *times = getenv("FAKE_COPIES");
    unsigned wanted = times == NULL ? 1 : (unsigned)atoi(times);
    (void)flags;
    for (unsigned number = 0; number < wanted; number++)
        deliver(number);
    return CUPTI_SUCCESS;
}
