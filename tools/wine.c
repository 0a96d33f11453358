// A library that wine 8 lacks and Go's runtime needs, bcryptprimitives.dll: random numbers. Windows has its own.
//
// Wine 8 also answers "not implemented" where Go's os.RemoveAll asks for a way of removing files that it does not know,
// and Go goes on in the older way only after "no such class", which other systems answer. So the one becomes the other.
#include <windows.h>
#include <ntsecapi.h>
#include <winternl.h>
#include <string.h>

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size) { return RtlGenRandom(data, size); }

enum { NOT_IMPLEMENTED = 0xC0000002, INVALID_INFO_CLASS = 0xC0000003 };  // of NTSTATUS

typedef NTSTATUS NTAPI set_information_file(HANDLE, IO_STATUS_BLOCK *, void *, ULONG, int);

static set_information_file *original;

static NTSTATUS NTAPI with_other_status(HANDLE file, IO_STATUS_BLOCK *io, void *data, ULONG size, int class) {
    NTSTATUS status = original(file, io, data, size, class);
    return status == (NTSTATUS)NOT_IMPLEMENTED ? (NTSTATUS)INVALID_INFO_CLASS : status;
}

// Puts a jump at the beginning of wine's function, of which a copy stays: its 32 bytes refer to fixed addresses alone.
BOOL WINAPI DllMain(HINSTANCE library, DWORD reason, void *reserved) {
    enum { SIZE = 32 };
    unsigned char jump[12] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0};  // mov rax, address; jmp rax
    set_information_file *target = with_other_status;
    DWORD protection;
    if (reason != DLL_PROCESS_ATTACH) return TRUE;
    void *function = (void *)GetProcAddress(GetModuleHandleA("ntdll.dll"), "NtSetInformationFile");
    void *copy = VirtualAlloc(NULL, SIZE, MEM_COMMIT | MEM_RESERVE, PAGE_EXECUTE_READWRITE);
    if (!function || !copy || !VirtualProtect(function, SIZE, PAGE_EXECUTE_READWRITE, &protection)) return FALSE;
    memcpy(copy, function, SIZE);
    original = (set_information_file *)copy;
    memcpy(jump + 2, &target, sizeof target);
    memcpy(function, jump, sizeof jump);
    return VirtualProtect(function, SIZE, protection, &protection);
}
