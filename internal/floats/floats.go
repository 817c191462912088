// Package floats views vectors of float32 as the bytes they have in memory, which is
// how tensors travel and are checked. Every machine of a run is little-endian.
package floats

import (
	"encoding/binary"
	"hash/crc32"
	"unsafe"
)

// LittleEndian is false on a machine that cannot take part in a run.
var LittleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// Castagnoli is the table of CRC-32C, which amd64 and arm64 compute in hardware.
var Castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Bytes views f as bytes; it is the same memory. Buffers are made as []float32 and
// viewed this way, never the other way round, so they are aligned by construction.
func Bytes(f []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(f))), 4*len(f))
}

// Words views f as whole numbers of as many bytes; it is the same memory.
func Words(f []float32) []int32 {
	return unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(f))), len(f))
}

// Checksum adds the vector to a CRC-32C; begin with 0.
func Checksum(crc uint32, f []float32) uint32 {
	return crc32.Update(crc, Castagnoli, Bytes(f))
}
