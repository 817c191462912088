// Package proto holds what crosses the wire: one .proto file per part of
// muster, the Go code generated from them, and the framing that the control
// paths share.
//
// A frame is a 4-byte little-endian length and one protobuf message. Tensors
// do not travel in frames: their owners (ps, collective) send raw bytes after a
// frame that announces them.
//
// Import it as pb, because google.golang.org/protobuf/proto has the same name.
package proto
