package ps

import (
	"encoding/binary"
	"hash/crc32"
	"unsafe"
)

// Tensors cross the wire as the bytes they have in memory, so every machine of a run
// must be little-endian; NewServer and NewClient refuse others.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// castagnoli is the CRC-32C table; amd64 and arm64 compute it in hardware.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// bytesOf views floats as bytes. All big buffers are made as []float32 and viewed this
// way, never the other way round, so alignment is right by construction.
func bytesOf(f []float32) []byte {
	if len(f) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&f[0])), 4*len(f))
}

func checksum(f []float32) uint32 { return crc32.Checksum(bytesOf(f), castagnoli) }

func addChecksum(crc uint32, f []float32) uint32 { return crc32.Update(crc, castagnoli, bytesOf(f)) }
