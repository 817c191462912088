package huge

import "golang.org/x/sys/unix"

// advise is a wish; that the system does not know it is no error.
func advise(at, n uintptr) { _, _, _ = unix.Syscall(unix.SYS_MADVISE, at, n, unix.MADV_HUGEPAGE) }
