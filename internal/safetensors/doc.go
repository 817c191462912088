// Package safetensors writes and reads models in the safetensors format
// (https://huggingface.co/docs/safetensors): an 8-byte little-endian length, a JSON
// header, and the tensors' bytes.
//
// It promises that equal tensors give equal bytes: names are sorted, metadata is sorted,
// and the data lies in the order of the names. A file is replaced as a whole or not at all,
// whatever fails on the way, a full disk included. A file that is read is checked whole: no
// tensor overlaps another, no byte belongs to none, and nothing is allocated because a header says so.
//
// It leaves out every element type but float32.
package safetensors
