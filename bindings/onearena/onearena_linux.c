#include <stdlib.h> /* says whether this is glibc */
#ifdef __GLIBC__
#include <malloc.h>

/* The number of arenas is fixed when Go starts its first thread, before any Go code runs. */
__attribute__((constructor)) static void share_arena(void) { mallopt(M_ARENA_MAX, 1); }
#endif
