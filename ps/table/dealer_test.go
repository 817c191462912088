package table

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// The dealer encodes what AppendParts makes of the rows of each shard.
func TestDealer(t *testing.T) {
	c := testConfigs(t)["sgd"]
	r := rand.New(rand.NewPCG(9, 9))
	for _, shards := range []int{1, 3, 7} {
		d := NewDealer([]Config{c}, shards)
		for range 3 {
			parts := randomParts(r, 4, c.Dim, 150)
			d.Parts(parts)
			for shard, got := range d.Payloads {
				s, _ := New([]Config{c}, shard, shards, 4)
				var own []Part
				for _, p := range parts {
					own = append(own, of(s, p))
				}
				if !bytes.Equal(got, AppendParts(nil, own)) {
					t.Fatalf("shard %d of %d is dealt other parts", shard, shards)
				}
			}
			d.Keys(parts[1].Tables)
			for i, k := range parts[1].Tables[0].Keys {
				if int(d.Shards[i]) != Slot(k)%shards {
					t.Fatalf("key %x is dealt to shard %d of %d", k, d.Shards[i], shards)
				}
			}
			for shard, got := range d.Payloads {
				s, _ := New([]Config{c}, shard, shards, 4)
				if own := of(s, parts[1]); !bytes.Equal(got, appendRequest(nil, [][]uint64{own.Tables[0].Keys})) {
					t.Fatalf("shard %d of %d is asked for other keys", shard, shards)
				}
			}
		}
	}
}

// appendRequest encodes what Decoder.Keys decodes.
func appendRequest(dst []byte, keys [][]uint64) []byte {
	for _, k := range keys {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(k)))
	}
	for _, k := range keys {
		dst = appendKeys(dst, k)
	}
	return dst
}
