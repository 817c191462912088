// Package journal keeps records in append-only files, so that whatever Append has
// returned for is on the disk, and whatever the disk has damaged is noticed and named.
//
// A journal is a folder of segments, 00000001.seg and so on. All integers are little-endian:
//
//	segment: magic[8] number:u64 crc:u32 0:u32, then records
//	record:  kind:u32 crc:u32 mark:u64 a:u64 b:u64 length:u32 head_crc:u32, then length bytes
//
// crc is the CRC-32C of the record's bytes, head_crc that of the 36 bytes before it.
//
// # What it promises
//
//   - One Append, however many records it holds, costs one fdatasync. When it returns nil
//     its records outlive a power cut; when it fails, none of them is there: the file is
//     cut back to where it was, and the next Append begins another segment, because after
//     a failed fsync nobody knows what the disk has. So a full disk fails the writer, and
//     the writer may try again when there is room.
//   - A tail that was torn by a crash is cut off. It was not acknowledged.
//   - A flipped bit is told as Damage, with file and offset. A record whose head is whole
//     is passed on as damaged, for its owner may get it elsewhere; when a head is damaged
//     nothing behind it can be found, and Open fails.
//
// # Torn or damaged
//
// The last Append before a crash may be there in part: cut short, or with sectors of
// zeros where the disk did not get to. Anything else is damage, also at the end. This is
// the rule of etcd's write-ahead log; what it cannot tell from a crash is a disk that
// turns a sector of the last Append into zeros afterwards.
//
// # What it leaves out
//
// What the records mean. The owner gives each a mark, which grows as time goes by, and
// Trim removes the oldest segments in which all marks lie below a bound.
package journal
