package huge

import "golang.org/x/sys/unix"

// advise is a wish; that the system does not know it is no error.
func advise(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }
