/* The witness of copies: a library that the CUDA driver loads into the engine's process (CUDA_INJECTION64_PATH).
 *
 * It asks CUPTI for activity records and appends one line each to the file named by FALSIFY_COPIES:
 *
 *     copy CORRELATION COPY_KIND SOURCE_KIND TARGET_KIND ASYNC BYTES START END STREAM
 *     call CORRELATION START END THREAD NAME           (memory copies and synchronisation only)
 *     lost COUNT                                       (records that CUPTI could not deliver)
 *     full                                             (the limit of the file is reached; nothing follows)
 *
 * Times are CLOCK_MONOTONIC nanoseconds, the clock of the harness. Nothing of the engine is asked or changed.
 */
#include <cupti.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 20, LINE_BYTES = 512, ALIGNMENT = 8, FLUSH_MS = 50 };
static const long LIMIT_BYTES = 32L << 20;

static int target = -1;
static long written;

static uint64_t monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void put(const char *line) {
    size_t size = strlen(line);
    if (target < 0)
        return;
    if (written + (long)size > LIMIT_BYTES)
        line = "full\n", size = 5;
    int whole = write(target, line, size) == (ssize_t)size;
    written += (long)size;
    if (!whole || strcmp(line, "full\n") == 0) {
        close(target);
        target = -1;
    }
}

static void put_copy(const CUpti_Activity *record) {
    char line[LINE_BYTES];
    const CUpti_ActivityMemcpy6 *copy = (const CUpti_ActivityMemcpy6 *)record;
    snprintf(line, sizeof line, "copy %u %u %u %u %u %llu %llu %llu %u\n", copy->correlationId, copy->copyKind,
             copy->srcKind, copy->dstKind, (copy->flags & CUPTI_ACTIVITY_FLAG_MEMCPY_ASYNC) != 0,
             (unsigned long long)copy->bytes, (unsigned long long)copy->start, (unsigned long long)copy->end,
             copy->streamId);
    put(line);
}

static void put_call(const CUpti_Activity *record, CUpti_CallbackDomain domain) {
    char line[LINE_BYTES];
    const char *name = NULL;
    const CUpti_ActivityAPI *call = (const CUpti_ActivityAPI *)record;
    if (cuptiGetCallbackName(domain, call->cbid, &name) != CUPTI_SUCCESS || name == NULL)
        return;
    if (strstr(name, "emcpy") == NULL && strstr(name, "ynchronize") == NULL)
        return;
    snprintf(line, sizeof line, "call %u %llu %llu %u %.100s\n", call->correlationId, (unsigned long long)call->start,
             (unsigned long long)call->end, call->threadId, name);
    put(line);
}

static void CUPTIAPI requested(uint8_t **buffer, size_t *size, size_t *records) {
    *buffer = aligned_alloc(ALIGNMENT, BUFFER_BYTES);
    *size = *buffer == NULL ? 0 : BUFFER_BYTES;
    *records = 0;
}

static void CUPTIAPI completed(CUcontext context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid) {
    CUpti_Activity *record = NULL;
    size_t lost = 0;
    (void)size;
    while (valid > 0 && cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
        if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY)
            put_copy(record);
        else if (record->kind == CUPTI_ACTIVITY_KIND_RUNTIME)
            put_call(record, CUPTI_CB_DOMAIN_RUNTIME_API);
        else if (record->kind == CUPTI_ACTIVITY_KIND_DRIVER)
            put_call(record, CUPTI_CB_DOMAIN_DRIVER_API);
    }
    if (cuptiActivityGetNumDroppedRecords(context, stream, &lost) == CUPTI_SUCCESS && lost > 0) {
        char line[LINE_BYTES];
        snprintf(line, sizeof line, "lost %zu\n", lost);
        put(line);
    }
    free(buffer);
}

static void flush(void) {
    cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
}

/* The driver calls this by name when the process initialises CUDA. */
int InitializeInjection(void) {
    const char *path = getenv("FALSIFY_COPIES");
    if (path == NULL || target >= 0)
        return 1;
    target = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    cuptiActivityRegisterTimestampCallback(monotonic);
    if (target < 0 || cuptiActivityRegisterCallbacks(requested, completed) != CUPTI_SUCCESS ||
        cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMCPY) != CUPTI_SUCCESS ||
        cuptiActivityEnable(CUPTI_ACTIVITY_KIND_DRIVER) != CUPTI_SUCCESS ||
        cuptiActivityEnable(CUPTI_ACTIVITY_KIND_RUNTIME) != CUPTI_SUCCESS) {
        put("failed\n");
        return 1;
    }
    cuptiActivityFlushPeriod(FLUSH_MS);
    atexit(flush);
    put("ready\n");
    return 1;
}
