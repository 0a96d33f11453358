#include <stdlib.h> /* says whether this is glibc */
#ifdef __GLIBC__
#include <malloc.h>

/* The number of arenas is fixed when Go starts its first thread, before any Go code runs. */
__attribute__((constructor)) static void share_arena(void) {
    mallopt(M_ARENA_MAX, 1);
    /* Returns a large block when it is freed. glibc would raise this size with every such block and put the next ones
       on the heap, which grows for as long as a server builds graphs of new sizes. */
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
}
#endif
