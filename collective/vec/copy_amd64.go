package vec

import "golang.org/x/sys/cpu"

// copyString is one string instruction, which takes whole lines of dst without reading them first.
//
//go:noescape
func copyString(dst, src *byte, n int)

// stringLeast is from how many bytes on starting the instruction is worth it, on processors that say they are good at it.
const stringLeast = 2 << 10

// Share copies src, as copy does, to memory that another core has read last. To store in a line one must have it, and ordinary stores
// fetch each from that core's cache although they overwrite all of it. Two cores that share a third-level cache copy 20 % faster
// this way, two that do not (EPYC 9005, a lane of 256 KiB) 20 instead of 6.5 GB/s.
func Share(dst, src []byte) int {
	n := min(len(dst), len(src))
	if n < stringLeast || !cpu.X86.HasERMS {
		return copy(dst, src)
	}
	copyString(&dst[0], &src[0], n)
	return n
}
